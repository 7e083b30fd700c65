import {
  columns,
  type Index,
  indexes as ofTable,
  triggers as wantedTriggers,
} from "../attach/parts.ts";
import { ownSchema } from "../own-schema.ts";
import { type Check, type Examination, type Finding, ok, problem, rows, warning } from "./check.ts";
import { migrateSteps } from "./migration.ts";
import { quote, say, sql } from "./remedy.ts";
import { stateTable } from "./shape.ts";
import { newConstraintIndex } from "./table.ts";

/** Counts anew, and tells clients so by a new epoch. */
const anew = "--attach-anew";

/** A column that isn't as attaching made it. */
interface ColumnRow {
  readonly name: string;
  /** Null where there is none. */
  readonly type: string | null;
  readonly isWrong: boolean;
}

const changedColumns = `
  select w.name, format_type(a.atttypid, null) as type, a.atttypid <> to_regtype(w.type) as "isWrong"
    from unnest($2::text[], $3::text[], $4::boolean[]) as w (name, type, has_default)
    left join (pg_class c join pg_namespace n on n.oid = c.relnamespace)
           on n.nspname = $1 and c.relname = 'plugin_state'
    left join pg_attribute a on a.attrelid = c.oid and a.attname = w.name and not a.attisdropped
   where a.atttypid is distinct from to_regtype(w.type) or w.has_default and not a.atthasdef`;

/** That plugin_state has the sidecar's columns. */
export const addedColumnsCheck: Check = {
  name: "columns",
  run: async (examination) => {
    const changed = await rows<ColumnRow & Record<string, unknown>>(examination, changedColumns, [
      examination.stateSchema,
      columns.map(({ name }) => name),
      columns.map(({ type }) => type),
      columns.map((one) => one.default !== undefined),
    ]);
    const wrong = changed.filter(({ isWrong }) => isWrong);
    const missing = changed.filter(({ type }) => type === null).map(({ name }) => name);
    if (wrong.length > 0) {
      return await judgeWrong(examination, wrong);
    }
    if (missing.length > 0) {
      return problem(
        "configuration",
        `missing: ${missing.join(", ")}; revisions and expiry are kept in them`,
        say("Attach to the table again:"),
        ...(await migrateSteps(examination)),
      );
    }
    return changed.length === 0 ? ok("present") : await judgeDefaults(examination, changed);
  },
};

async function judgeWrong(examination: Examination, wrong: readonly ColumnRow[]): Promise<Finding> {
  const table = stateTable(examination);
  const names = wrong.map(({ name }) => name);
  return problem(
    "configuration",
    `of another type: ${wrong.map(({ name, type }) => `${name} ${type}`).join(", ")}`,
    say("They hold nothing that the host needs. As the owner:"),
    ...names.map((name) => sql(`alter table ${table} drop column ${quote(name)};`)),
    ...(await migrateSteps(examination, anew)),
  );
}

async function judgeDefaults(
  examination: Examination,
  changed: readonly ColumnRow[],
): Promise<Finding> {
  return problem(
    "configuration",
    `without their defaults: ${changed.map(({ name }) => name).join(", ")}; rows that other programs insert have no revision`,
    say("Attach anew, which counts what was written meanwhile:"),
    ...(await migrateSteps(examination, anew)),
  );
}

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
    const triggerNames = wantedTriggers.map(({ name }) => name);
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
      say("Attach anew, which counts what was written meanwhile:"),
      ...(await migrateSteps(examination, anew)),
    );
  },
};

/** In the sidecar's own schema, of migrations: how to make them. */
const ownIndexes: readonly { name: string; definition: string }[] = [
  { name: "external_writes_idx", definition: "external_writes (plugin_id, xact, id)" },
  { name: "requests_expiry_idx", definition: "requests (plugin_id, expires_at)" },
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
    const isMissing = ({ name }: { name: string }) => !found.some((one) => one.name === name);
    const attached = (await indexesOf(examination)).filter(isMissing);
    const own = ownIndexes.filter(isMissing);
    const missing = [...attached, ...own];
    if (missing.length === 0) {
      return ok("present and valid");
    }
    const statements = own.map(({ name, definition }) =>
      sql(`create index concurrently ${name} on ${ownSchema}.${definition};`),
    );
    return warning(
      `missing, which makes calls slow: ${missing.map(({ name }) => name).join(", ")}`,
      ...(own.length > 0 ? [say("As the owner, outside of a transaction:"), ...statements] : []),
      ...(attached.length > 0 ? await migrateSteps(examination) : []),
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

/** Those that attaching makes on this table. */
async function indexesOf(examination: Examination): Promise<Index[]> {
  const sorted = await rows<{ name: string }>(
    examination,
    `select a.attname as name from pg_attribute a join pg_collation l on l.oid = a.attcollation
       join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = 'plugin_state' and l.collname not in ('C', 'POSIX')`,
    [examination.stateSchema],
  );
  return ofTable.filter(
    ({ unlessBytewise }) =>
      unlessBytewise?.some((name) => sorted.some((one) => one.name === name)) ?? true,
  );
}

/** What a trigger couldn't do. The host's statements went on, and nothing is noted since. */
export const triggerFaults: Check = {
  name: "trigger-faults",
  run: async (examination) => {
    const [first] = await rows<{ at: string; problem: string }>(
      examination,
      `select at::text, left(regexp_replace(problem, '[[:cntrl:]]+', ' ', 'g'), 200) as problem
         from ${ownSchema}.trigger_faults order by trigger_faults.at limit 1`,
    );
    if (first === undefined) {
      return ok("none");
    }
    return problem(
      "configuration",
      `other programs' writes aren't noted since ${first.at}, so they have no revision: ${first.problem}`,
      say(
        "If a column or the table was renamed by hand, rename it back; if by a migration of the host's, use a release of plugin-state that knows its new table. Then attach anew, which counts what was missed:",
      ),
      ...(await migrateSteps(examination, anew)),
    );
  },
};
