import pg from "pg";
import {
  DatabaseUnavailable,
  InvalidValue,
  PluginNotRegistered,
  StateError,
  TooLargeToRead,
} from "../state/errors.ts";
import { maxReadableValueBytes } from "../state/limits.ts";

/**
 * The one place where PostgreSQL's error codes (SQLSTATE) become what they mean to the domain.
 * Nothing of PostgreSQL's own text goes further than the log: it may quote values.
 */

/** Another transaction was in the way; the same statement may succeed now. */
const conflicts: ReadonlySet<string> = new Set([
  "40001", // serialization_failure
  "40P01", // deadlock_detected
  "55P03", // lock_not_available: a foreign writer holds an entry and waits for our counter
  "23505", // unique_violation: a writer that the triggers don't see inserted the same entry
]);

/** The value is one that jsonb refuses. Our own check should have caught it. */
const refusedValues: ReadonlySet<string> = new Set([
  "22003", // numeric_value_out_of_range
  "22021", // character_not_in_repertoire
  "22023", // invalid_parameter_value
  "22P02", // invalid_text_representation
  "22P05", // untranslatable_character
  "54000", // program_limit_exceeded
  "54001", // statement_too_complex: stack depth
]);

/** The database isn't, or isn't any more, as this release made it: dropped, being restored, or newer. */
const foreignStates: ReadonlySet<string> = new Set([
  "0A000", // feature_not_supported: a prepared statement's result has other columns now
  "26000", // invalid_sql_statement_name: a pooler between us and the database gave us another session
  "3D000", // invalid_catalog_name: no such database
  "3F000", // invalid_schema_name
  "42501", // insufficient_privilege
  "42703", // undefined_column
  "42883", // undefined_function
  "42P01", // undefined_table
]);

/** The server is there but doesn't serve us now. Classes are the first two characters. */
const unavailableStates: ReadonlySet<string> = new Set([
  ...foreignStates,
  "25006", // read_only_sql_transaction: a standby, or a primary that was made read-only
  "57014", // query_canceled
  "57P01", // admin_shutdown
  "57P02", // crash_shutdown
  "57P03", // cannot_connect_now
  "57P05", // idle_session_timeout
]);
const unavailableClasses: ReadonlySet<string> = new Set([
  "08", // connection_exception
  "53", // insufficient_resources: too many connections, out of memory, disk full
  "58", // system_error
]);

/** What ends a session that has statements under way, whatever the language. */
const sessionEnds: ReadonlySet<string> = new Set([
  "25P03", // idle_in_transaction_session_timeout
  "25P04", // transaction_timeout
  "57P01", // admin_shutdown
  "57P02", // crash_shutdown
  "57P03", // cannot_connect_now
  "57P04", // database_dropped
  "57P05", // idle_session_timeout
]);

const readOnly = "25006";
const tooManyConnections = "53300";
const foreignKeyViolation = "23503";
const programLimitExceeded = "54000";

/** Whether the statement was undone because of another transaction, and may be sent again as it is. */
export function isConflict(error: unknown): boolean {
  return conflicts.has(sqlState(error));
}

/** Whether the connection is gone or in an unknown state, rather than just the statement refused. */
export function isConnectionLost(error: unknown): boolean {
  return !(error instanceof pg.DatabaseError) || endsSession(error);
}

/** Severities are in the language of `lc_messages`, and pg drops the field that has them in English. */
function endsSession({ severity = "FATAL", code = "" }: pg.DatabaseError): boolean {
  switch (severity) {
    case "ERROR":
      return false;
    case "FATAL":
    case "PANIC":
      return true;
    default:
      return sessionEnds.has(code) || code.startsWith("08");
  }
}

/**
 * Whether a statement was refused because the database isn't what it was: it was demoted, dropped or
 * migrated. A connection of another time may find the right one.
 */
export function isDatabaseChanged(error: unknown): boolean {
  const state = sqlState(error);
  return state === readOnly || foreignStates.has(state);
}

/** Whether the server, or the role or the database on it, has no connection left for us. */
export function isCrowded(error: unknown): boolean {
  return sqlState(error) === tooManyConnections;
}

/** Whether the server itself said no, rather than that it couldn't be reached. */
export function isRefusal(error: unknown): boolean {
  return error instanceof pg.DatabaseError;
}

/** A statement was given up because its answer took too long. Its connection is of no more use. */
export class StatementLate extends Error {
  constructor(statement: string) {
    super(`${statement} wasn't answered in time`);
  }
}

/** Whether a statement was given up because its answer took too long. */
export function isTimeout(error: unknown): boolean {
  return error instanceof StatementLate;
}

/** What a prepared statement finds on a server connection that a pooler took from another client. */
const lostNames: ReadonlySet<string> = new Set([
  "26000", // invalid_sql_statement_name: prepared on another connection
  "42P05", // duplicate_prepared_statement: prepared here by another client
]);

/** Whether a statement didn't run because its name is known elsewhere only, or to somebody else. */
export function isNameLost(error: unknown): boolean {
  return lostNames.has(sqlState(error));
}

/** Whether a statement that writes was sent and its answer didn't come. */
export function isOutcomeUnknown(error: unknown): boolean {
  if (error instanceof StateError) {
    return false;
  }
  return isConnectionLost(error);
}

/** The connection broke with a read on its way: it can be sent again. */
export class ReadLost extends DatabaseUnavailable {}

/** Wraps the cause of a failed connection. */
export function unavailable(cause: unknown): DatabaseUnavailable {
  return new DatabaseUnavailable({ cause });
}

/** What a failed read means. */
export function readError(error: unknown, plugin: string): unknown {
  if (error instanceof StateError) {
    return error;
  }
  if (sqlState(error) === programLimitExceeded) {
    return new TooLargeToRead(maxReadableValueBytes);
  }
  if (!isConnectionLost(error)) {
    return statementError(error, plugin);
  }
  return isTimeout(error) ? unavailable(error) : new ReadLost({ cause: error });
}

/** What a write means that the database refused. */
export function writeError(error: unknown, plugin: string): unknown {
  return error instanceof StateError ? error : statementError(error, plugin);
}

function statementError(error: unknown, plugin: string): unknown {
  const state = sqlState(error);
  if (
    unavailableStates.has(state) ||
    unavailableClasses.has(state.slice(0, 2)) ||
    isConflict(error)
  ) {
    return unavailable(error);
  }
  if (refusedValues.has(state)) {
    return new InvalidValue("value_json", "can't be kept by the database");
  }
  if (state === foreignKeyViolation) {
    return new PluginNotRegistered(plugin);
  }
  return error;
}

/** PostgreSQL's code for what it refused; "" when it didn't answer at all. */
export function sqlState(error: unknown): string {
  return error instanceof pg.DatabaseError ? (error.code ?? "") : "";
}
