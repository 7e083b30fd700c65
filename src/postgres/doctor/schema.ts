import pg from "pg";
import { installedStateSchema, missingMigrations, SchemaError } from "../migrate.ts";
import {
  type Check,
  type Examination,
  type Finding,
  ok,
  problem,
  row,
  rows,
  warning,
} from "./check.ts";

/** That the schema is the one this release needs. Those after it look into it. */
export const schema: Check = {
  name: "schema",
  run: async ({ client, stateSchema }) => {
    try {
      const missing = await missingMigrations(client);
      if (missing.length > 0) {
        return problem(
          "configuration",
          `the database lacks migrations of this release: ${missing.join(", ")}`,
          "Run `plugin-state migrate`, or `serve` without --no-migrate.",
        );
      }
      const installed = await installedStateSchema(client);
      return installed === stateSchema
        ? ok(`up to date; the state is in schema ${stateSchema}`)
        : problem(
            "configuration",
            `the state is in schema ${installed}, not ${stateSchema}`,
            `Give --state-schema ${installed}.`,
          );
    } catch (error) {
      if (error instanceof SchemaError) {
        return problem("configuration", error.message, error.hint);
      }
      throw error;
    }
  },
};

/** What the sidecar's functions rely on, by the names that pg_catalog has for types. */
const columns: Readonly<Record<string, string>> = {
  id: "uuid",
  plugin_id: "uuid",
  scope_kind: "text",
  scope_id: "text",
  namespace: "text",
  state_key: "text",
  value_json: "jsonb",
  updated_at: "timestamptz",
  revision: "int8",
  created_at: "timestamptz",
  expires_at: "timestamptz",
  size_bytes: "int8",
};

/** That plugin_state has its columns and its constraint, which a restored dump may lack. */
export const table: Check = {
  name: "table",
  run: async (examination) => {
    const found = await rows<{ name: string; type: string }>(
      examination,
      `select a.attname as name, t.typname as type from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped`,
      [stateTable(examination)],
    );
    const wrong = Object.entries(columns)
      .filter(([name, type]) => !found.some((one) => one.name === name && one.type === type))
      .map(([name, type]) => `${name} ${type}`);
    if (wrong.length > 0) {
      return problem(
        "configuration",
        `table ${stateTable(examination)} lacks columns: ${wrong.join(", ")}`,
        "Restore the table from a backup, or add them as migrations/0001 does.",
      );
    }
    return (await hasConstraint(examination))
      ? ok("columns and constraint are as they should be")
      : problem(
          "configuration",
          "constraint plugin_state_unique_entry_idx lacks NULLS NOT DISTINCT",
          constraintRemedy(examination),
        );
  },
};

function constraintRemedy(examination: Examination): string {
  return `Remove duplicates first, if there are any (see the check duplicates). Then, as the owner:
alter table ${stateTable(examination)} drop constraint if exists plugin_state_unique_entry_idx,
  add constraint plugin_state_unique_entry_idx
  unique nulls not distinct (plugin_id, scope_kind, scope_id, namespace, state_key);`;
}

async function hasConstraint(examination: Examination): Promise<boolean> {
  const { holds } = await row<{ holds: boolean }>(
    examination,
    `select exists (
       select from pg_constraint c join pg_index i on i.indexrelid = c.conindid
        where c.conrelid = $1::regclass and c.conname = 'plugin_state_unique_entry_idx'
          and i.indnullsnotdistinct) as holds`,
    [stateTable(examination)],
  );
  return holds;
}

/** That no entry of the instance scope is there twice, as can be while the constraint was wrong. */
export const duplicates: Check = {
  name: "duplicates",
  run: async (examination) => {
    if (await hasConstraint(examination)) {
      return ok("impossible: the constraint sees to it");
    }
    const { entries } = await row<{ entries: number }>(
      examination,
      `select count(*)::int as entries from (
         select from ${stateTable(examination)} where scope_id is null
          group by plugin_id, scope_kind, namespace, state_key having count(*) > 1) d`,
    );
    return entries === 0
      ? ok("none")
      : problem(
          "configuration",
          `${entries} entries without a scope id are there more than once`,
          `As the owner, to keep of each the row that was written last:
delete from ${stateTable(examination)} a using ${stateTable(examination)} b
 where a.scope_id is null and b.scope_id is null and a.plugin_id = b.plugin_id
   and a.scope_kind = b.scope_kind and a.namespace = b.namespace and a.state_key = b.state_key
   and (a.updated_at, a.id) < (b.updated_at, b.id);`,
        );
  },
};

const triggerNames = [
  "plugin_sidecar_count_foreign_write",
  "plugin_sidecar_number_foreign_write",
  "plugin_sidecar_count_foreign_truncate",
];

/** That other programs' writes are numbered and counted. */
export const triggers: Check = {
  name: "triggers",
  run: async (examination) => {
    const found = await rows<{ name: string; enabled: string }>(
      examination,
      "select tgname as name, tgenabled as enabled from pg_trigger where tgrelid = $1::regclass",
      [stateTable(examination)],
    );
    const lost = triggerNames.filter((name) => !found.some((one) => one.name === name));
    const off = found
      .filter(({ name, enabled }) => triggerNames.includes(name) && !"OA".includes(enabled))
      .map(({ name }) => name);
    return lost.length + off.length === 0 ? ok("present and enabled") : withoutTriggers(lost, off);

    function withoutTriggers(lost: readonly string[], off: readonly string[]): Finding {
      const said = [
        ...(lost.length > 0 ? [`missing: ${lost.join(", ")}`] : []),
        ...(off.length > 0 ? [`disabled: ${off.join(", ")}`] : []),
      ];
      const enable = off.map(
        (name) => `alter table ${stateTable(examination)} enable trigger ${name};`,
      );
      return problem(
        "configuration",
        `${said.join("; ")}: other programs' writes get no revision`,
        lost.length > 0
          ? "Restore them from migrations/0002, as the role that migrated."
          : `As the owner:\n${enable.join("\n")}`,
      );
    }
  },
};

/** What to build where it is missing; null for the constraint, which the check `table` speaks of. */
interface NeededIndex {
  readonly name: string;
  readonly on: "state" | "own";
  readonly definition: string;
  /** Only where the host's table doesn't sort by bytes. */
  readonly ifCollated?: true;
}

const neededIndexes: readonly NeededIndex[] = [
  {
    name: "plugin_sidecar_expiry_idx",
    on: "state",
    definition: "plugin_state (plugin_id, expires_at) where expires_at is not null",
  },
  {
    name: "plugin_sidecar_key_order_idx",
    on: "state",
    definition: 'plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key collate "C")',
    ifCollated: true,
  },
  {
    name: "plugin_sidecar_scope_order_idx",
    on: "state",
    definition: 'plugin_state (plugin_id, scope_kind, scope_id collate "C", namespace collate "C")',
    ifCollated: true,
  },
  { name: "requests_expiry_idx", on: "own", definition: "requests (expires_at)" },
];

/** That the indexes which the functions count on are there, and valid. */
export const indexes: Check = {
  name: "indexes",
  run: async (examination) => {
    const { stateSchema } = examination;
    const found = await rows<{ schema: string; name: string; valid: boolean }>(
      examination,
      `select n.nspname as schema, i.relname as name, x.indisvalid and x.indisready as valid
         from pg_index x join pg_class i on i.oid = x.indexrelid
         join pg_class t on t.oid = x.indrelid join pg_namespace n on n.oid = t.relnamespace
        where (n.nspname = $1 and t.relname in ('plugins', 'plugin_state')) or n.nspname = 'plugin_sidecar'`,
      [stateSchema],
    );
    const invalid = found.filter(({ valid }) => !valid);
    if (invalid.length > 0) {
      const sql = invalid.map(
        ({ schema, name }) =>
          `reindex index ${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)};`,
      );
      return problem(
        "configuration",
        `invalid, as a build that failed leaves them: ${invalid.map(({ name }) => name).join(", ")}`,
        `As the owner:\n${sql.join("\n")}`,
      );
    }
    const isCollated = await sortsOtherwise(examination);
    const missing = neededIndexes
      .filter(({ ifCollated }) => isCollated || !ifCollated)
      .filter(({ name }) => !found.some((one) => one.name === name));
    if (missing.length === 0) {
      return ok("present and valid");
    }
    const sql = missing.map(({ name, on, definition }) => {
      const schema = pg.escapeIdentifier(on === "own" ? "plugin_sidecar" : stateSchema);
      return `create index ${name} on ${schema}.${definition};`;
    });
    return warning(
      `missing, which makes calls slow: ${missing.map(({ name }) => name).join(", ")}`,
      `As the owner:\n${sql.join("\n")}`,
    );
  },
};

async function sortsOtherwise(examination: Examination): Promise<boolean> {
  const { otherwise } = await row<{ otherwise: boolean }>(
    examination,
    `select exists (
       select from pg_attribute a join pg_collation c on c.oid = a.attcollation
        where a.attrelid = $1::regclass and a.attname in ('scope_id', 'namespace', 'state_key')
          and c.collname not in ('C', 'POSIX')) as otherwise`,
    [stateTable(examination)],
  );
  return otherwise;
}

interface VacuumRow {
  readonly name: string;
  readonly live: string;
  readonly dead: string;
  readonly disabled: boolean;
  readonly age: number;
}

/** Whether dead rows are removed in time. Every write leaves one behind. */
export const vacuum: Check = {
  name: "vacuum",
  run: async (examination) => {
    const { limits, stateSchema } = examination;
    const tables = await rows<VacuumRow>(
      examination,
      `select c.relname as name, coalesce(s.n_live_tup, 0) as live, coalesce(s.n_dead_tup, 0) as dead,
              age(c.relfrozenxid)::int as age,
              not current_setting('autovacuum')::boolean or exists (
                select from unnest(c.reloptions) o
                 where o ~ '^autovacuum_enabled=(off|false|0|no)$') as disabled
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_stat_user_tables s on s.relid = c.oid
        where c.relkind = 'r' and (n.nspname = 'plugin_sidecar' or (n.nspname = $1 and c.relname = 'plugin_state'))
        order by c.relname`,
      [stateSchema],
    );
    const disabled = tables.filter((one) => one.disabled);
    if (disabled.length > 0) {
      return warning(
        `autovacuum is off for ${disabled.map(({ name }) => name).join(", ")}`,
        "Switch it on: every write leaves a dead row behind.",
      );
    }
    const old = tables.filter(({ age }) => age > limits.frozenAge);
    const bloated = tables.filter(
      ({ live, dead }) => Number(dead) > limits.deadRows && Number(dead) > Number(live),
    );
    if (old.length + bloated.length === 0) {
      return ok("dead rows are removed");
    }
    const said = [
      ...bloated.map(({ name, dead, live }) => `${name} has ${dead} dead rows beside ${live}`),
      ...old.map(({ name, age }) => `${name} wasn't frozen for ${age} transactions`),
    ];
    return warning(
      said.join("; "),
      "Run vacuum (analyze) on them, and find out what keeps autovacuum from it: see the check transactions.",
    );
  },
};

/** Whether there is a plugin to serve. */
export const plugins: Check = {
  name: "plugins",
  run: async (examination) => {
    const { registered } = await row<{ registered: number }>(
      examination,
      `select count(*)::int as registered from ${pg.escapeIdentifier(examination.stateSchema)}.plugins`,
    );
    return registered > 0
      ? ok(`${registered} registered`)
      : warning(
          "none is registered",
          "Let the host install one, or run `plugin-state plugin add KEY`.",
        );
  },
};

function stateTable({ stateSchema }: Examination): string {
  return `${pg.escapeIdentifier(stateSchema)}.plugin_state`;
}
