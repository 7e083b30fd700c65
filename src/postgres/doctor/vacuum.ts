import { type Check, ok, rows, warning } from "./check.ts";

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
