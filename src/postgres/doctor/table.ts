import {
  type Check,
  type Examination,
  type Finding,
  ok,
  problem,
  row,
  rows,
  scan,
  warning,
} from "./check.ts";
import { quote, type Remedy, say, sql } from "./remedy.ts";
import { isAttached, pluginsTable, stateTable } from "./shape.ts";

/** What the sidecar relies on, by the names that pg_catalog has for types. */
const columns: Readonly<Record<string, string>> = {
  id: "uuid",
  plugin_id: "uuid",
  scope_kind: "text",
  scope_id: "text",
  namespace: "text",
  state_key: "text",
  value_json: "jsonb",
  updated_at: "timestamptz",
};

interface Column {
  readonly name: string;
  readonly type: string;
}

/** The columns of plugin_state. */
async function stateColumns(examination: Examination): Promise<Column[]> {
  return await rows<Column & Record<string, unknown>>(
    examination,
    `select a.attname as name, t.typname as type
       from pg_attribute a join pg_type t on t.oid = a.atttypid
       join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = 'plugin_state' and a.attnum > 0 and not a.attisdropped`,
    [examination.stateSchema],
  );
}

/** That no entry is there twice, as can be while the constraint is wrong or missing. */
export const duplicates: Check = {
  name: "duplicates",
  run: async (examination) => {
    if (await hasConstraint(examination)) {
      return ok("impossible: the constraint sees to it");
    }
    const found = await scan<{ entries: number }>(
      examination,
      `select count(*)::int as entries from (
         select from ${stateTable(examination)}
          group by plugin_id, scope_kind, scope_id, namespace, state_key having count(*) > 1) d`,
    );
    const entries = found?.[0]?.entries;
    if (entries === 0) {
      return ok("none");
    }
    return problem(
      "configuration",
      entries === undefined
        ? `no constraint prevents them, and they took longer to count than ${examination.limits.scanMs} ms`
        : `${entries} entries are there more than once: a read may tell either, a write changes both`,
      say("As the owner, to keep of each the row that was written last:"),
      sql(`delete from ${stateTable(examination)} where id in (
  select id from (
    select id, row_number() over (partition by plugin_id, scope_kind, scope_id, namespace, state_key
                                  order by updated_at desc, id desc) as n
      from ${stateTable(examination)}) d
   where n > 1);`),
    );
  },
};

/** That plugin_state has the columns and the constraint of its host, which a restored dump may lack. */
export const table: Check = {
  name: "table",
  run: async (examination) => {
    const found = await stateColumns(examination);
    const wrong = Object.entries(columns).filter(
      ([name, type]) => !found.some((one) => one.name === name && one.type === type),
    );
    if (wrong.length > 0) {
      return judgeColumns(examination, wrong, found);
    }
    const keys = await missingKeys(examination);
    if (!(await hasConstraint(examination))) {
      return problem(
        "configuration",
        "constraint plugin_state_unique_entry_idx is missing or lacks NULLS NOT DISTINCT: writes to the instance scope would add rows",
        say(
          "Remove duplicates first, if there are any. Then, as the owner; the first may take a while, but nobody waits for it:",
        ),
        ...constraintStatements(examination),
        ...keys,
      );
    }
    return keys.length === 0
      ? ok("columns and constraints are as they should be")
      : warning(
          "primary or foreign keys are missing, as after a restore that stopped half-way: entries outlive their plugin",
          say("Look whether the host's other tables are whole, too. As the owner:"),
          ...keys,
        );
  },
};

/** A renamed column can be told from the one that nobody knows and has its type. */
function judgeColumns(
  examination: Examination,
  wrong: readonly (readonly [string, string])[],
  found: readonly Column[],
): Finding {
  const name = stateTable(examination);
  const unknown = found.filter(
    (one) => columns[one.name] === undefined && !one.name.startsWith("sidecar_"),
  );
  const renames = wrong.flatMap(([column, type]) => {
    const alike = unknown.filter((one) => one.type === type);
    const [old] = alike;
    return alike.length === 1 && old !== undefined
      ? [sql(`alter table ${name} rename column ${quote(old.name)} to ${quote(column)};`)]
      : [];
  });
  return problem(
    "configuration",
    `table ${name} lacks columns: ${wrong.map((one) => one.join(" ")).join(", ")}`,
    say(
      isAttached(examination)
        ? "If a migration of the host's took or renamed them, use a release of plugin-state that knows the host's new table."
        : "Restore the table from a backup.",
    ),
    ...(renames.length > 0 ? [say("If somebody renamed them by hand, as the owner:")] : []),
    ...renames,
  );
}

/** The index that becomes the constraint's. */
export const newConstraintIndex = "plugin_state_unique_entry_new";

function constraintStatements(examination: Examination) {
  const name = stateTable(examination);
  const index = newConstraintIndex;
  return [
    sql(`drop index concurrently if exists ${quote(examination.stateSchema)}.${index};`),
    sql(`create unique index concurrently ${index} on ${name}
  (plugin_id, scope_kind, scope_id, namespace, state_key) nulls not distinct;`),
    sql(`alter table ${name} drop constraint if exists plugin_state_unique_entry_idx,
  add constraint plugin_state_unique_entry_idx unique using index ${index};`),
  ];
}

async function hasConstraint({ client, stateSchema }: Examination): Promise<boolean> {
  const { rows: found } = await client.query(
    `select from pg_constraint c join pg_index i on i.indexrelid = c.conindid
       join pg_class t on t.oid = c.conrelid join pg_namespace n on n.oid = t.relnamespace
      where n.nspname = $1 and t.relname = 'plugin_state'
        and c.conname = 'plugin_state_unique_entry_idx' and i.indnullsnotdistinct`,
    [stateSchema],
  );
  return found.length > 0;
}

interface Keys {
  readonly plugins: boolean;
  readonly state: boolean;
  readonly reference: boolean;
}

/** The host's other constraints: a restore that stopped half-way leaves none. */
async function missingKeys(examination: Examination): Promise<Remedy> {
  const has = await row<Keys & Record<string, unknown>>(
    examination,
    `select bool_or(t.relname = 'plugins' and c.contype = 'p') as plugins,
            bool_or(t.relname = 'plugin_state' and c.contype = 'p') as state,
            bool_or(t.relname = 'plugin_state' and c.contype = 'f' and f.relname = 'plugins') as reference
       from pg_constraint c join pg_class t on t.oid = c.conrelid
       join pg_namespace n on n.oid = t.relnamespace left join pg_class f on f.oid = c.confrelid
      where n.nspname = $1 and t.relname in ('plugins', 'plugin_state')`,
    [examination.stateSchema],
  );
  const [state, plugins] = [stateTable(examination), pluginsTable(examination)];
  return [
    ...(has.plugins ? [] : [sql(`alter table ${plugins} add primary key (id);`)]),
    ...(has.state ? [] : [sql(`alter table ${state} add primary key (id);`)]),
    ...(has.reference
      ? []
      : [
          sql(`alter table ${state} add constraint plugin_state_plugin_id_plugins_id_fk
  foreign key (plugin_id) references ${plugins} (id) on delete cascade not valid;`),
        ]),
  ];
}
