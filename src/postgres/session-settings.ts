/** What a setting must be in our sessions, and what it does to them otherwise. */
export interface SessionSetting {
  readonly name: string;
  readonly value: string;
  /** Wrong: calls fail or mean something else. Slow: they fail or wait now and then. */
  readonly otherwise: "wrong" | "slow";
}

/**
 * What the server, the database or the role may have sessions begin with, and ours must not have. Each was
 * tried: a sidecar whose role has the opposite of all of them serves as ever (test/hostile-settings.test.ts).
 *
 * Not among them: `default_transaction_read_only`, which is a refusal that somebody meant; and what makes no
 * difference, as the statements name every schema and neither take nor return dates, intervals or bytea.
 */
export const sessionSettings: readonly SessionSetting[] = [
  // Calls have deadlines of their own: --database-timeout-ms, --max-call-ms.
  { name: "statement_timeout", value: "0", otherwise: "slow" },
  { name: "lock_timeout", value: "0", otherwise: "slow" },
  { name: "idle_in_transaction_session_timeout", value: "0", otherwise: "slow" },
  { name: "idle_session_timeout", value: "0", otherwise: "slow" },
  // PostgreSQL 17 and later.
  { name: "transaction_timeout", value: "0", otherwise: "slow" },
  // Writers wait for each other at the plugin's counter; with another isolation they fail there instead.
  { name: "default_transaction_isolation", value: "read committed", otherwise: "wrong" },
  { name: "default_transaction_deferrable", value: "off", otherwise: "wrong" },
  { name: "standard_conforming_strings", value: "on", otherwise: "wrong" },
  // Off, a null in an array of parameters is the text "NULL".
  { name: "array_nulls", value: "on", otherwise: "wrong" },
  { name: "transform_null_equals", value: "off", otherwise: "wrong" },
  { name: "exit_on_error", value: "off", otherwise: "wrong" },
  // Short statements never win back what it takes to compile them.
  { name: "jit", value: "off", otherwise: "slow" },
  { name: "plan_cache_mode", value: "auto", otherwise: "slow" },
];

const list = sessionSettings.map(({ name, value }) => `('${name}', '${value}')`).join(", ");

/**
 * Makes a session's settings what its statements need. In one message, whose parts are timed one by one: the
 * first take no time, so even a `statement_timeout` of a millisecond lets the others pass.
 *
 * `synchronous_commit` stays off for those alone who ask for it in the database URL (`options=-c …`).
 * `session_replication_role` only a superuser may set.
 */
export const settleSession = `
  set statement_timeout = 0;
  set jit = off;
  select set_config('transaction_timeout', '0', false)
   where current_setting('transaction_timeout', true) is not null;
  select set_config(name, value, false) from (values ${list}) as s (name, value)
   where current_setting(name, true) is not null;
  select set_config('session_replication_role', 'origin', false)
   where current_setting('session_replication_role') <> 'origin' and current_setting('is_superuser')::boolean;
  select set_config('synchronous_commit', 'on', false) from pg_settings
   where current_setting('synchronous_commit') = 'off' -- asked first: the view is slow
     and name = 'synchronous_commit' and source <> 'client'`;
