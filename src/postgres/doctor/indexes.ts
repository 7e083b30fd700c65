import pg from "pg";
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
import { stateTable } from "./schema.ts";

/** What to build where it is missing. Of the constraint the check `table` speaks. */
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
      return judgeInvalid(invalid);
    }
    const isCollated = await sortsOtherwise(examination);
    const missing = neededIndexes
      .filter(({ ifCollated }) => isCollated || !ifCollated)
      .filter(({ name }) => !found.some((one) => one.name === name));
    return missing.length > 0 ? judgeMissing(missing, stateSchema) : ok("present and valid");
  },
};

function judgeInvalid(invalid: readonly { schema: string; name: string }[]): Finding {
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

function judgeMissing(missing: readonly NeededIndex[], stateSchema: string): Finding {
  const sql = missing.map(({ name, on, definition }) => {
    const schema = pg.escapeIdentifier(on === "own" ? "plugin_sidecar" : stateSchema);
    return `create index ${name} on ${schema}.${definition};`;
  });
  return warning(
    `missing, which makes calls slow: ${missing.map(({ name }) => name).join(", ")}`,
    `As the owner:\n${sql.join("\n")}`,
  );
}

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
