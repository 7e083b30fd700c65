import { setTimeout as sleep } from "node:timers/promises";
import type { Closers } from "./closers.ts";
import type { DatabaseConfig } from "./config/config.ts";
import { EmbeddedError } from "./embedded/embedded-error.ts";
import type { Log } from "./log.ts";
import { type Connection, withClient } from "./postgres/connection.ts";
import {
  currentRole,
  describeGrants,
  grantServing,
  missingGrants,
  servingGrants,
} from "./postgres/grants.ts";
import { checkSchema, migrate, SchemaError } from "./postgres/migrate.ts";
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

/** What to do about a database that is away at start. */
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
 */
export async function onceThere<T>(
  work: () => Promise<T>,
  { failFast, onAway }: Waiting,
  log: Log,
  signal: AbortSignal,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (cause) {
      const error = databaseStartError(cause);
      if (!error.retryable || failFast) {
        throw error;
      }
      log.warn({ err: cause, attempt }, "waiting for the database");
      onAway?.();
      await sleep(retryMs(attempt), undefined, { signal });
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
      ran = await migrate(migrationConnection, stateSchema, { signal, onProgress, attachAnew });
      if (migrationConnection !== connection) {
        await grantServing(migrationConnection, connection, stateSchema);
      }
    } else {
      await checkSchema(connection, stateSchema);
    }
    await requireGrants(connection, preparation);
    return ran;
  };
  return await onceThere(prepare, preparation, log, signal);
}

/** A role that lacks a right is refused at once rather than at the first call that needs it. */
async function requireGrants(
  connection: Connection,
  { stateSchema, forServing = true }: Preparation,
): Promise<void> {
  if (!forServing) {
    return;
  }
  await withClient(connection, async (client) => {
    const role = await currentRole(client);
    const missing = await missingGrants(client, role, servingGrants(stateSchema));
    if (missing.length > 0) {
      throw new StartError("DATABASE_PERMISSION", `role ${role} lacks ${describeGrants(missing)}`, {
        exitCode: ExitCode.noPermission,
        hint: "`plugin-state grants ROLE` prints the SQL that grants them.",
      });
    }
  });
}

const firstRetryMs = 200;
const maxRetryMs = 5_000;

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
