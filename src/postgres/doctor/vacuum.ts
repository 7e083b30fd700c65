import { ownSchema } from "../own-schema.ts";
import { type Check, type DoctorLimits, type Finding, ok, rows, warning } from "./check.ts";
import { quote, say, sql } from "./remedy.ts";

interface VacuumRow {
  readonly schema: string;
  readonly name: string;
  readonly live: string;
  readonly dead: string;
  readonly bytes: string;
  readonly toast_live: string;
  readonly toast_dead: string;
  readonly toast_bytes: string;
  readonly server_off: boolean;
  readonly off: boolean;
  readonly toast_off: boolean;
  readonly never: boolean;
  readonly age: number;
}

const vacuumRows = `
  select n.nspname as schema, c.relname as name,
         coalesce(s.n_live_tup, 0) as live, coalesce(s.n_dead_tup, 0) as dead,
         pg_relation_size(c.oid) as bytes,
         coalesce(ts.n_live_tup, 0) as toast_live, coalesce(ts.n_dead_tup, 0) as toast_dead,
         coalesce(pg_relation_size(t.oid), 0) as toast_bytes,
         not current_setting('autovacuum')::boolean as server_off,
         exists (select from unnest(c.reloptions) o where o ~ '^autovacuum_enabled=(off|false|0|no)$') as off,
         exists (select from unnest(t.reloptions) o where o ~ '^autovacuum_enabled=(off|false|0|no)$') as toast_off,
         coalesce(s.last_vacuum, s.last_autovacuum) is null as never,
         greatest(age(c.relfrozenxid), age(t.relfrozenxid))::int as age
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    left join pg_stat_all_tables s on s.relid = c.oid
    left join pg_class t on t.oid = c.reltoastrelid
    left join pg_stat_all_tables ts on ts.relid = t.oid
   where c.relkind = 'r' and (n.nspname = $2 or (n.nspname = $1 and c.relname = 'plugin_state'))
   order by c.relname`;

/** Whether dead rows are removed in time, and the room they took is used. Every write leaves one behind. */
export const vacuum: Check = {
  name: "vacuum",
  run: async (examination) => {
    const { limits, stateSchema } = examination;
    const tables = await rows<VacuumRow & Record<string, unknown>>(examination, vacuumRows, [
      stateSchema,
      ownSchema,
    ]);
    const off = tables.filter((one) => one.off || one.toast_off);
    if (off.length > 0 || tables.some((one) => one.server_off)) {
      return judgeOff(
        off,
        tables.some((one) => one.server_off),
      );
    }
    const dead = tables.flatMap((one) => deadRows(one, limits));
    const said = tables.flatMap((one) => [
      ...deadRows(one, limits),
      ...(one.age > limits.frozenAge
        ? [`${one.name} wasn't frozen for ${one.age} transactions`]
        : []),
    ]);
    if (said.length > 0) {
      return judgeDead(
        tables.filter((one) => needsVacuum(one, limits)),
        said,
        dead.length > 0,
      );
    }
    const bloated = tables.flatMap((one) => bloat(one, limits));
    return bloated.length > 0 ? judgeBloat(bloated) : ok("dead rows are removed");
  },
};

function isMostlyDead(dead: string, live: string, limits: DoctorLimits): boolean {
  return Number(dead) > limits.deadRows && Number(dead) > Number(live);
}

function deadRows(one: VacuumRow, limits: DoctorLimits): string[] {
  const { name, live, dead, never } = one;
  const toast = isMostlyDead(one.toast_dead, one.toast_live, limits)
    ? [`${name} has ${one.toast_dead} dead pieces of large values (TOAST) beside ${one.toast_live}`]
    : [];
  const rest = never ? ", and was never vacuumed" : "";
  return isMostlyDead(dead, live, limits)
    ? [`${name} has ${dead} dead rows beside ${live}${rest}`, ...toast]
    : toast;
}

function needsVacuum(one: VacuumRow, limits: DoctorLimits): boolean {
  return deadRows(one, limits).length > 0 || one.age > limits.frozenAge;
}

function judgeOff(off: readonly VacuumRow[], isServerOff: boolean): Finding {
  const names = isServerOff ? "the whole server" : off.map(({ name }) => name).join(", ");
  return warning(
    `autovacuum is off for ${names}: every write leaves a dead row behind, and reads get slower`,
    say(isServerOff ? "As a superuser:" : "As the owner:"),
    ...(isServerOff
      ? [sql("alter system reset autovacuum;"), sql("select pg_reload_conf();")]
      : []),
    ...off.map((one) =>
      sql(`alter table ${qualified(one)} reset (autovacuum_enabled, toast.autovacuum_enabled);`),
    ),
  );
}

function judgeDead(
  tables: readonly VacuumRow[],
  said: readonly string[],
  isDead: boolean,
): Finding {
  return warning(
    `${said.join("; ")}: reads get slower, and the table grows`,
    say("As the owner; nobody waits for it:"),
    ...tables.map((one) => sql(`vacuum ${isDead ? "(analyze)" : "(freeze)"} ${qualified(one)};`)),
    say("If rows stay dead, something keeps autovacuum from them: see the check transactions."),
  );
}

/** A piece of a large value has 2 kB; a row of the small tables is rewritten within its page of 8 kB. */
const toastBytes = 2_048;
const rowBytes = 8_192;

interface Bloat {
  readonly table: VacuumRow;
  readonly said: string;
}

function bloat(table: VacuumRow, { bloatBytes }: DoctorLimits): Bloat[] {
  const isBloated = (bytes: string, live: string, each: number) =>
    Number(bytes) > bloatBytes && Number(bytes) > 4 * Number(live) * each;
  if (isBloated(table.toast_bytes, table.toast_live, toastBytes)) {
    return [
      {
        table,
        said: `large values of ${table.name} (TOAST) take ${mebibytes(table.toast_bytes)} MiB`,
      },
    ];
  }
  return isBloated(table.bytes, table.live, rowBytes)
    ? [{ table, said: `${table.name} takes ${mebibytes(table.bytes)} MiB for ${table.live} rows` }]
    : [];
}

function mebibytes(bytes: string): number {
  return Math.round(Number(bytes) / 1024 ** 2);
}

function judgeBloat(bloated: readonly Bloat[]): Finding {
  return warning(
    `${bloated.map(({ said }) => said).join("; ")}, most of it empty, by the server's statistics`,
    say(
      "New entries use the room. To give it back now, as the owner in a quiet hour: calls wait until it's done.",
    ),
    ...bloated.map(({ table }) => sql(`vacuum (full, analyze) ${qualified(table)};`)),
  );
}

function qualified({ schema, name }: VacuumRow): string {
  return `${quote(schema)}.${quote(name)}`;
}
