import { servingRole } from "./global-setup.ts";

/** What a role or a database may have sessions begin with, and a sidecar must not suffer from. */
export const hostileSettings: Readonly<Record<string, string>> = {
  statement_timeout: "10",
  lock_timeout: "1",
  idle_in_transaction_session_timeout: "1",
  idle_session_timeout: "1000",
  default_transaction_isolation: "serializable",
  default_transaction_deferrable: "on",
  standard_conforming_strings: "off",
  array_nulls: "off",
  transform_null_equals: "on",
  exit_on_error: "on",
  synchronous_commit: "off",
  session_replication_role: "replica",
  jit: "on",
  jit_above_cost: "0",
  plan_cache_mode: "force_generic_plan",
  // What makes no difference.
  search_path: "nowhere",
  client_encoding: "LATIN1",
  datestyle: "German",
  intervalstyle: "iso_8601",
  bytea_output: "escape",
  extra_float_digits: "-15",
  timezone: "Pacific/Chatham",
  xmloption: "document",
  quote_all_identifiers: "on",
  row_security: "off",
  enable_indexscan: "off",
  enable_bitmapscan: "off",
  "plpgsql.extra_errors": "all",
  "plpgsql.extra_warnings": "all",
};

/** SQL that makes the serving role's sessions in this database begin with a setting. */
export function letServingRoleBeginWith(name: string, value: string): string {
  return `do $$ begin execute format('alter role ${servingRole} in database %I set ${name} = %L',
    current_database(), '${value}'); end $$`;
}
