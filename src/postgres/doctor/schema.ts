import { SchemaError } from "../migrate.ts";
import { ownSchema } from "../own-schema.ts";
import { type Check, type Examination, type Finding, ok, problem, rows } from "./check.ts";
import { migrateSteps } from "./migration.ts";
import { command, say, sql } from "./remedy.ts";
import { isAttached, type Shape, shapeOf } from "./shape.ts";

/** That the schema is the one this release needs. Those after it look into it. */
export const schema: Check = {
  name: "schema",
  run: async (examination) => {
    try {
      return await judge(examination, await shapeOf(examination));
    } catch (error) {
      if (error instanceof SchemaError) {
        return problem("configuration", error.message, say(error.hint));
      }
      throw error;
    }
  },
};

async function judge(examination: Examination, shape: Shape): Promise<Finding> {
  const { stateSchema } = examination;
  const { places, missing, installed } = shape;
  if (installed !== undefined && installed !== stateSchema) {
    return otherSchema(examination, installed);
  }
  if (!places.includes(stateSchema) && (isAttached(examination) || installed !== undefined)) {
    return noTables(examination, shape);
  }
  const [elsewhere] = places.filter((place) => place !== ownSchema);
  if (missing.length > 0 && stateSchema === ownSchema && elsewhere !== undefined) {
    return elsewhereTables(examination, elsewhere, places);
  }
  if (missing.length > 0) {
    return problem(
      "configuration",
      `the database lacks migrations of this release: ${missing.join(", ")}`,
      ...(await migrateSteps(examination)),
      say("Then run doctor again, which has more checks."),
    );
  }
  return await judgeOwnTables(examination);
}

/** The migrations ran with another schema than this one. */
function otherSchema(examination: Examination, installed: string): Finding {
  return problem(
    "configuration",
    `the state is in schema ${installed}, not ${examination.stateSchema}`,
    say(`Give every command --state-schema ${installed}:`),
    command({ ...examination, stateSchema: installed }, "doctor", ...ifDefault(installed)),
  );
}

/** The default is told, too, where the environment may say otherwise. */
function ifDefault(stateSchema: string): string[] {
  return stateSchema === ownSchema ? ["--state-schema", ownSchema] : [];
}

/** The tables that the state would be in aren't there. */
async function noTables(examination: Examination, { places }: Shape): Promise<Finding> {
  const { stateSchema } = examination;
  const [elsewhere] = places;
  if (!isAttached(examination)) {
    return problem(
      "configuration",
      `schema ${stateSchema} has lost its tables plugins and plugin_state`,
      say("Restore the database from a backup: they held the state, and nothing can make it anew."),
    );
  }
  if (elsewhere !== undefined) {
    return problem(
      "configuration",
      `schema ${stateSchema} has no tables plugins and plugin_state; schema ${elsewhere} has`,
      say(`Give every command --state-schema ${elsewhere}:`),
      ...(await migrateSteps({ ...examination, stateSchema: elsewhere }, ...ifDefault(elsewhere))),
    );
  }
  return problem(
    "configuration",
    `schema ${stateSchema} has no tables plugins and plugin_state, which are the host's to make`,
    say(
      "Let the host start and run its own migrations. A sidecar that is started meanwhile waits for them, and then attaches.",
    ),
    say(
      "Without a host, leave --state-schema at its default: the sidecar makes tables of its own.",
    ),
  );
}

/** A host's tables are there, and no schema was named: its rows would never be seen. */
async function elsewhereTables(
  examination: Examination,
  elsewhere: string,
  places: readonly string[],
): Promise<Finding> {
  const others = places.filter((place) => place !== elsewhere && place !== ownSchema);
  const also = others.length > 0 ? ` (and ${others.join(", ")})` : "";
  return problem(
    "configuration",
    `not migrated; schema ${elsewhere}${also} has a host's tables plugins and plugin_state, whose entries a sidecar with tables of its own doesn't see`,
    say(
      `To serve the host's plugins, attach to its tables, and give every command --state-schema ${elsewhere}:`,
    ),
    ...(await migrateSteps({ ...examination, stateSchema: elsewhere })),
    say("For tables of its own beside them, `plugin-state migrate` without --state-schema."),
  );
}

const ownTables = [
  "installation",
  "plugin_revisions",
  "requests",
  "batches",
  "external_writes",
  "external_revisions",
  "trigger_faults",
];

async function judgeOwnTables(examination: Examination): Promise<Finding> {
  const found = await rows<{ name: string }>(
    examination,
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relkind = 'r'`,
    [ownSchema],
  );
  const lost = ownTables.filter((name) => !found.some((one) => one.name === name));
  if (lost.length === 0) {
    return ok(`up to date; the state is in schema ${examination.stateSchema}`);
  }
  const message = `schema ${ownSchema} has lost tables: ${lost.join(", ")}`;
  if (!isAttached(examination)) {
    return problem("configuration", message, say("Restore the database from a backup."));
  }
  return problem(
    "configuration",
    message,
    say(
      "Make the sidecar's schema anew. The host's rows stay; request ids that were remembered are forgotten, and clients see a new epoch of revisions. As the owner:",
    ),
    sql(`drop schema ${ownSchema} cascade;`),
    ...(await migrateSteps(examination)),
  );
}
