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
          "Run `plugin-state migrate`, or `serve` without --no-migrate; then doctor again, which has more checks.",
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
    return judgeTriggers(examination, lost, off);
  },
};

function judgeTriggers(
  examination: Examination,
  lost: readonly string[],
  off: readonly string[],
): Finding {
  if (lost.length > 0) {
    return problem(
      "configuration",
      `missing: ${lost.join(", ")}; other programs' writes get no revision`,
      "Restore them from migrations/0002, as the role that migrated.",
    );
  }
  if (off.length === 0) {
    return ok("present and enabled");
  }
  const sql = off.map((name) => `alter table ${stateTable(examination)} enable trigger ${name};`);
  return problem(
    "configuration",
    `disabled: ${off.join(", ")}; other programs' writes get no revision`,
    `As the owner:\n${sql.join("\n")}`,
  );
}

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

/** The table of the state, quoted. */
export function stateTable({ stateSchema }: Examination): string {
  return `${pg.escapeIdentifier(stateSchema)}.plugin_state`;
}
