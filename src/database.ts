import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { Closers } from "./closers.ts";
import type { DatabaseConfig } from "./config/config.ts";
import { EmbeddedError } from "./embedded/embedded-error.ts";
import type { Log } from "./log.ts";
import { unlessAborted } from "./patience.ts";
import { type Connection, withClient } from "./postgres/connection.ts";
import {
  currentRole,
  describeGrants,
  grantServing,
  missingGrants,
  servingGrants,
} from "./postgres/grants.ts";
import { checkSchema, migrate, SchemaError } from "./postgres/migrate.ts";
import { lacksHostTables } from "./postgres/state-tables.ts";
import { ExitCode, StartError } from "./start-error.ts";
import { DatabaseUnavailable } from "./state/errors.ts";

/** A database that this process may use. */
export interface Database {
  readonly connection: Connection;
  /** The same, unless migrations have a role of their own: that one then grants the other what it needs. */
  readonly migrationConnection: Connection;
}

/**
 * Finds the database: the one that was given, or our own, started if it doesn't run yet.
 *
 * @param closers Gets what has to be released again.
 * @throws {StartError} when our own can't be started.
 */
export async function openDatabase(
  config: DatabaseConfig,
  log: Log,
  closers: Closers,
  signal: AbortSignal,
): Promise<Database> {
  const { namedStatements = true } = config;
  if (config.kind === "url") {
    const connection = { connectionString: config.url, namedStatements };
    const { migrationUrl } = config;
    const migrationConnection =
      migrationUrl === undefined ? connection : { connectionString: migrationUrl };
    return { connection, migrationConnection };
  }
  const { startEmbedded } = await import("./embedded/embedded-postgres.ts");
  try {
    const embedded = await startEmbedded({ dataDir: config.dataDir, log, signal });
    closers.add(() => embedded.stop());
    const connection = { ...embedded.connection, namedStatements };
    return { connection, migrationConnection: connection };
  } catch (error) {
    throw error instanceof EmbeddedError ? embeddedStartError(error) : error;
  }
}

/** What to do about a database that is away at start, or isn't the host's yet. */
export interface Waiting {
  /** True: it is an error; else it is waited for. */
  readonly failFast: boolean;
  /** Called when it is away, and will be waited for. */
  readonly onAway?: () => void;
}

/** What to do about the schema before serving. */
export interface Preparation extends Waiting {
  readonly stateSchema: string;
  /** False: check only. */
  readonly migrate: boolean;
  /** False: the role needn't be one that can serve. */
  readonly forServing?: boolean;
  /** Counts all entries again, also if nothing is missing. */
  readonly attachAnew?: boolean;
  /** Told what takes its time: a sentence for a person. By default the log is. */
  readonly onProgress?: (message: string) => void;
}

/**
 * Does what needs the database, again and again until it is there.
 *
 * @throws {StartError} when waiting won't help, or wasn't wanted.
 * @throws the signal's reason when it aborts, at once.
 */
export async function onceThere<T>(
  work: () => Promise<T>,
  { failFast, onAway }: Waiting,
  log: Log,
  signal: AbortSignal,
): Promise<T> {
  let isForHost = false;
  for (let attempt = 0; ; attempt++) {
    try {
      return await unlessAborted(work(), signal);
    } catch (cause) {
      signal.throwIfAborted();
      const error = databaseStartError(cause);
      if (!error.retryable || failFast) {
        throw error;
      }
      const wasForHost = isForHost;
      isForHost = error.reason === hostTablesMissing;
      if (!isForHost) {
        log.warn({ err: cause, attempt }, "waiting for the database");
      } else if (!wasForHost) {
        log.warn({ hint: error.hint }, `waiting for the host: ${error.message}`);
      }
      onAway?.();
      await sleep(isForHost ? hostRetryMs : retryMs(attempt), undefined, { signal });
    }
  }
}

/**
 * Waits for the database and brings its schema up to date, or checks it. Returns the names of the
 * migrations it ran.
 *
 * @throws {StartError} when waiting won't help, or wasn't wanted.
 */
export async function prepareDatabase(
  { connection, migrationConnection }: Database,
  preparation: Preparation,
  log: Log,
  signal: AbortSignal,
): Promise<string[]> {
  const { stateSchema, attachAnew = false, onProgress = (said) => log.info(said) } = preparation;
  const prepare = async () => {
    let ran: string[] = [];
    if (preparation.migrate) {
      await requireHostTables(migrationConnection, stateSchema, signal);
      ran = await migrate(migrationConnection, stateSchema, { signal, onProgress, attachAnew });
      if (migrationConnection !== connection) {
        await grantServing(migrationConnection, connection, stateSchema, signal);
      }
    } else {
      await requireHostTables(connection, stateSchema, signal);
      await checkSchema(connection, stateSchema, signal);
    }
    await requireGrants(connection, preparation, signal);
    return ran;
  };
  return await onceThere(prepare, preparation, log, signal);
}

/** Why a host's tables are waited for. */
const hostTablesMissing = "HOST_TABLES_MISSING";

/** A host that hasn't migrated yet isn't attached to: the tables are its own to make. */
async function requireHostTables(
  connection: Connection,
  stateSchema: string,
  signal: AbortSignal,
): Promise<void> {
  const isLacking = await withClient(
    connection,
    (client) => lacksHostTables(client, stateSchema),
    signal,
  );
  if (isLacking) {
    const said = `schema ${stateSchema} has no tables plugins and plugin_state yet`;
    throw new StartError(hostTablesMissing, said, {
      exitCode: ExitCode.databaseUnavailable,
      retryable: true,
      hint: "The host makes them when it migrates; without a host leave --state-schema at its default.",
    });
  }
}

/** A role that lacks a right is refused at once rather than at the first call that needs it. */
async function requireGrants(
  connection: Connection,
  { stateSchema, forServing = true }: Preparation,
  signal: AbortSignal,
): Promise<void> {
  if (!forServing) {
    return;
  }
  const check = async (client: pg.Client) => {
    const role = await currentRole(client);
    const missing = await missingGrants(client, role, servingGrants(stateSchema));
    if (missing.length > 0) {
      throw new StartError("DATABASE_PERMISSION", `role ${role} lacks ${describeGrants(missing)}`, {
        exitCode: ExitCode.noPermission,
        hint: "`plugin-state grants ROLE` prints the SQL that grants them.",
      });
    }
  };
  await withClient(connection, check, signal);
}

const firstRetryMs = 200;
const maxRetryMs = 5_000;
/** A host that installs plugins is soon followed: it is asked one small question. */
const hostRetryMs = 1_000;

function retryMs(attempt: number): number {
  const ceiling = Math.min(maxRetryMs, firstRetryMs * 2 ** attempt);
  return ceiling * (0.75 + Math.random() / 2);
}

/** SQLSTATEs that say what the operator has to mend; anything else a connection says may pass. */
const permission = new Set(["28000", "28P01", "42501"]);
const configuration = new Set(["3D000", "3F000", "42704"]);

/** What a failure of the database at start means to a host and to an operator. */
export function databaseStartError(cause: unknown): StartError {
  if (cause instanceof StartError) {
    return cause;
  }
  if (cause instanceof DatabaseUnavailable) {
    return databaseStartError(cause.cause);
  }
  if (cause instanceof SchemaError) {
    const { reason, message, hint } = cause;
    return new StartError(reason, message, { exitCode: ExitCode.configuration, hint, cause });
  }
  const { code = "", message = "" } = (cause ?? {}) as { code?: string; message?: string };
  if (permission.has(code)) {
    const hint =
      "Check the role and its password. `plugin-state doctor` says what it lacks; `plugin-state migrate` needs a role that may create schemas.";
    const said = `the database refused: ${message}`;
    return new StartError("DATABASE_PERMISSION", said, {
      exitCode: ExitCode.noPermission,
      hint,
      cause,
    });
  }
  if (configuration.has(code)) {
    const said = `the database refused: ${message}`;
    return new StartError("DATABASE_CONFIGURATION", said, {
      exitCode: ExitCode.configuration,
      cause,
    });
  }
  if (isPassing(code)) {
    const said = "the database can't be reached";
    const exitCode = ExitCode.databaseUnavailable;
    return new StartError("DATABASE_UNAVAILABLE", said, { exitCode, retryable: true, cause });
  }
  return new StartError("DATABASE_SETUP_FAILED", "the database's schema could not be set up", {
    exitCode: ExitCode.bug,
    cause,
  });
}

/** Whether this may pass by itself: no connection, or one that broke, or a server that isn't ready. */
function isPassing(code: string): boolean {
  const isSqlState = /^[0-9A-Z]{5}$/.test(code);
  return (
    !isSqlState ||
    ["08", "53", "57", "58", "40", "55"].includes(code.slice(0, 2)) ||
    code === "25006"
  );
}

const embeddedExitCodes: Partial<Record<EmbeddedError["reason"], number>> = {
  no_account: ExitCode.noPermission,
  data_dir_unreachable: ExitCode.noPermission,
  data_dir_unusable: ExitCode.noPermission,
  directory_taken: ExitCode.noPermission,
  start_failed: ExitCode.databaseUnavailable,
  not_answering: ExitCode.databaseUnavailable,
  in_use_elsewhere: ExitCode.databaseUnavailable,
};

function embeddedStartError(error: EmbeddedError): StartError {
  const { reason, message, hint } = error;
  const exitCode = embeddedExitCodes[reason] ?? ExitCode.configuration;
  return new StartError(`EMBEDDED_${reason.toUpperCase()}`, message, {
    exitCode,
    retryable: exitCode === ExitCode.databaseUnavailable,
    cause: error,
    ...(hint === undefined ? {} : { hint: asSentence(hint) }),
  });
}

function asSentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
