import { Closers } from "../closers.ts";
import type { DatabaseCommandConfig, Read } from "../config/config.ts";
import { type Database, openDatabase } from "../database.ts";
import { createLog, type Log } from "../log.ts";
import { ExitCode, StartError } from "../start-error.ts";

/** What a command has while its database is open. */
export interface OpenDatabase {
  readonly database: Database;
  readonly log: Log;
  /** Aborts when the person at the terminal has had enough. */
  readonly signal: AbortSignal;
  /** Releases what it is given when the command ends. */
  readonly closers: Closers;
}

/**
 * Opens a command's database, runs `work` and closes everything again, also after Ctrl-C: an
 * embedded PostgreSQL that was started for it is stopped. Warnings and errors go to the log.
 */
export async function withDatabase<T>(
  { config, warnings }: Read<DatabaseCommandConfig>,
  work: (open: OpenDatabase) => Promise<T>,
): Promise<T> {
  const log = createLog("warn");
  for (const warning of warnings) log.warn(warning);
  const stopping = new AbortController();
  const closers = new Closers();
  const { signal } = stopping;
  const stop = () => stopping.abort(interrupted());
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    const database = await openDatabase(config.database, log, closers, signal);
    return await work({ database, log, signal, closers });
  } catch (error) {
    throw signal.aborted ? interrupted() : error;
  } finally {
    await closers.close();
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

function interrupted(): StartError {
  return new StartError("INTERRUPTED", "interrupted", {
    exitCode: ExitCode.interrupted,
    retryable: true,
  });
}
