import { ownSchema } from "../migrate.ts";
import { type Check, type Examination, ok, problem, rows, warning } from "./check.ts";
import { migrateSteps } from "./migration.ts";
import { quote, say, sql } from "./remedy.ts";
import { stateTable } from "./shape.ts";
import { newConstraintIndex, stateColumns } from "./table.ts";

/** What attaching adds to plugin_state. */
const addedColumns: Readonly<Record<string, string>> = {
  sidecar_revision: "int8",
  sidecar_write_id: "int8",
  sidecar_created_at: "timestamptz",
  sidecar_expires_at: "timestamptz",
  sidecar_bytes: "int8",
};

const triggerNames = ["plugin_sidecar_stamp", "plugin_sidecar_log", "plugin_sidecar_log_truncate"];

/** Counts anew, and tells clients so by a new epoch. */
const anew = "--attach-anew";

/** That plugin_state has the sidecar's columns. */
export const addedColumnsCheck: Check = {
  name: "columns",
  run: async (examination) => {
    const found = await stateColumns(examination);
    const missing = Object.keys(addedColumns).filter(
      (name) => !found.some((one) => one.name === name),
    );
    const wrong = found.filter(
      ({ name, type }) => addedColumns[name] !== undefined && addedColumns[name] !== type,
    );
    if (wrong.length > 0) {
      return problem(
        "configuration",
        `of another type: ${wrong.map(({ name, type }) => `${name} ${type}`).join(", ")}`,
        say("They hold nothing that the host needs. As the owner:"),
        ...wrong.map(({ name }) =>
          sql(`alter table ${stateTable(examination)} drop column ${quote(name)};`),
        ),
        ...(await migrateSteps(examination, anew)),
      );
    }
    return missing.length === 0
      ? ok("present")
      : problem(
          "configuration",
          `missing: ${missing.join(", ")}; revisions and expiry are kept in them`,
          say("Attach to the table again:"),
          ...(await migrateSteps(examination)),
        );
  },
};

/** That other programs' writes are noticed. */
export const triggers: Check = {
  name: "triggers",
  run: async (examination) => {
    const found = await rows<{ name: string; enabled: string }>(
      examination,
      `select g.tgname as name, g.tgenabled as enabled
         from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relname = 'plugin_state' and not g.tgisinternal`,
      [examination.stateSchema],
    );
    const lost = triggerNames.filter((name) => !found.some((one) => one.name === name));
    const off = found
      .filter(({ name, enabled }) => triggerNames.includes(name) && !"OA".includes(enabled))
      .map(({ name }) => name);
    if (lost.length + off.length === 0) {
      return ok("present and enabled");
    }
    const said = [
      ...(lost.length > 0 ? [`missing: ${lost.join(", ")}`] : []),
      ...(off.length > 0 ? [`disabled: ${off.join(", ")}`] : []),
    ];
    return problem(
      "configuration",
      `${said.join("; ")}; other programs' writes get no revision and aren't counted`,
      ...(off.length > 0 ? [say("As the owner:")] : []),
      ...off.map((name) => sql(`alter table ${stateTable(examination)} enable trigger ${name};`)),
      say("Attach anew, which counts what was written meanwhile:"),
      ...(await migrateSteps(examination, anew)),
    );
  },
};

/** An index, and where it is needed. Of the constraint the check `table` speaks. */
interface NeededIndex {
  readonly name: string;
  /** In the sidecar's own schema: how to make it. The others are attaching's. */
  readonly definition?: string;
  /** Only where the host's table doesn't sort by bytes. */
  readonly ifCollated?: true;
}

const neededIndexes: readonly NeededIndex[] = [
  { name: "plugin_sidecar_expiry_idx" },
  { name: "plugin_sidecar_key_order_idx", ifCollated: true },
  { name: "plugin_sidecar_scope_order_idx", ifCollated: true },
  { name: "requests_expiry_idx", definition: "requests (expires_at)" },
];

interface IndexRow {
  readonly schema: string;
  readonly name: string;
  readonly valid: boolean;
  /** Whether a build is under way. Of which index, not every role may see. */
  readonly building: boolean;
}

const indexRows = `
  select n.nspname as schema, i.relname as name, x.indisvalid and x.indisready and x.indislive as valid,
         exists (select from pg_stat_progress_create_index p
                  where p.datname = current_database() and coalesce(nullif(p.index_relid, 0), i.oid) = i.oid) as building
    from pg_index x join pg_class i on i.oid = x.indexrelid
    join pg_class t on t.oid = x.indrelid join pg_namespace n on n.oid = t.relnamespace
   where (n.nspname = $1 and t.relname in ('plugins', 'plugin_state')) or n.nspname = $2`;

/** That the indexes which the functions count on are there, and valid. */
export const indexes: Check = {
  name: "indexes",
  run: async (examination) => {
    const found = await rows<IndexRow & Record<string, unknown>>(examination, indexRows, [
      examination.stateSchema,
      ownSchema,
    ]);
    const invalid = found.filter(({ valid }) => !valid);
    if (invalid.some(({ building }) => building)) {
      return warning(
        `being built: ${invalid.map(({ name }) => name).join(", ")}; until then calls may be slow`,
        say("Wait until it's done. Transactions that are open for long keep it from ending."),
      );
    }
    if (invalid.length > 0) {
      return problem(
        "configuration",
        `invalid, as a build that was cut leaves them: ${invalid.map(({ name }) => name).join(", ")}; they cost each write and serve no read`,
        say("As the owner, outside of a transaction:"),
        ...invalid.map(rebuild),
      );
    }
    const isCollated = await sortsOtherwise(examination);
    const missing = neededIndexes
      .filter(({ ifCollated }) => isCollated || !ifCollated)
      .filter(({ name }) => !found.some((one) => one.name === name));
    if (missing.length === 0) {
      return ok("present and valid");
    }
    const own = missing.flatMap(({ name, definition }) =>
      definition === undefined
        ? []
        : [sql(`create index concurrently ${name} on ${ownSchema}.${definition};`)],
    );
    return warning(
      `missing, which makes calls slow: ${missing.map(({ name }) => name).join(", ")}`,
      ...(own.length > 0 ? [say("As the owner, outside of a transaction:"), ...own] : []),
      ...(own.length < missing.length ? await migrateSteps(examination) : []),
    );
  },
};

/** What is left of an index that was to take the place of another isn't needed: that one is still there. */
function rebuild({ schema, name }: { schema: string; name: string }) {
  const qualified = `${quote(schema)}.${quote(name)}`;
  return /_cc(new|old)\d*$/.test(name) || name === newConstraintIndex
    ? sql(`drop index concurrently ${qualified};`)
    : sql(`reindex index concurrently ${qualified};`);
}

async function sortsOtherwise(examination: Examination): Promise<boolean> {
  const found = await rows(
    examination,
    `select from pg_attribute a join pg_collation l on l.oid = a.attcollation
       join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = 'plugin_state'
        and a.attname in ('scope_id', 'namespace', 'state_key') and l.collname not in ('C', 'POSIX')`,
    [examination.stateSchema],
  );
  return found.length > 0;
}

/** What the triggers couldn't do; the host's statements went on. */
export const triggerFaults: Check = {
  name: "trigger-faults",
  run: async (examination) => {
    // Whatever columns there are, these two are meant for people.
    const found = await rows<{ at: string; problem: string; all: number }>(
      examination,
      `select to_jsonb(f) ->> 'at' as at, left(regexp_replace(to_jsonb(f) ->> 'problem', '[[:cntrl:]]+', ' ', 'g'), 200) as problem,
              (count(*) over ())::int as all
         from ${ownSchema}.trigger_faults f order by 1 desc limit 3`,
    );
    const [last] = found;
    if (last === undefined) {
      return ok("none");
    }
    const said = found.map(({ at, problem: text }) => `${at}: ${text}`).join("; ");
    return problem(
      "configuration",
      `${last.all} times a write of another program wasn't noted, so it has no revision: ${said}`,
      say(
        "If a column or the table was renamed by hand, rename it back; if by a migration of the host's, use a release of plugin-state that knows its new table. Then attach anew, which counts what was missed:",
      ),
      ...(await migrateSteps(examination, anew)),
    );
  },
};
