import { Socket } from "node:net";
import { Client, DatabaseError } from "pg";
import { clusterUser } from "./cluster.ts";
import { EmbeddedError } from "./embedded-error.ts";

/** How to connect, in the words of pg's client configuration. */
export interface EmbeddedConnection {
  /** The directory of the server's unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password?: string;
  /** Always off, also where PGSSLMODE says otherwise: the server speaks no TLS on its socket. */
  readonly ssl: false;
}

/** Where a server listens. */
export interface ServerAddress {
  readonly socketDir: string;
  readonly port: number;
}

/** What a server said to a connection. */
export type Answer =
  /** It accepts connections. */
  | "ready"
  /** It lives, but is starting, recovering, stopping or full. */
  | "busy"
  /** Nobody answered. */
  | "silent";

const databaseName = "plugin_state";
// initdb makes it; it is there before ours is.
const firstDatabase = "postgres";
const connectTimeoutMs = 5_000;
// CREATE DATABASE copies 7 MB and waits for a checkpoint; a slow disk may take its time.
const queryTimeoutMs = 60_000;
// cannot_connect_now, too_many_connections, and the end of a server that was just stopping.
const busyCodes = new Set(["57P03", "53300", "57P01", "57P02"]);
const duplicateCodes = new Set(["42P04", "23505"]);

/** How to connect to the sidecar's database on the server at a socket. */
export function connectionTo({ socketDir, port }: ServerAddress): EmbeddedConnection {
  return { host: socketDir, port, user: clusterUser, database: databaseName, ssl: false };
}

/**
 * Asks a server whether it accepts connections. Throws EmbeddedError when it is no server of ours.
 */
export async function askServer(address: ServerAddress, signal: AbortSignal): Promise<Answer> {
  try {
    await withClient(address, signal, async (client) => client.query("select 1"));
    return "ready";
  } catch (error) {
    if (!(error instanceof DatabaseError)) return "silent";
    if (busyCodes.has(error.code ?? "")) return "busy";
    throw refused(address, error);
  }
}

function refused({ socketDir }: ServerAddress, error: DatabaseError): EmbeddedError {
  // No such role, or no such database.
  const isForeign = error.code?.startsWith("28") || error.code?.startsWith("3D");
  return new EmbeddedError(
    "not_answering",
    `the server at ${socketDir} refuses: ${error.message}`,
    {
      hint: isForeign
        ? "no sidecar made its data directory: choose another one, or set DATABASE_URL"
        : "see its log, postgres.log in the data directory",
      cause: error,
    },
  );
}

/**
 * Makes the sidecar's database unless it is there; any number of sidecars may do so at once. False
 * when the server went away meanwhile. Throws EmbeddedError `start_failed` when it refuses.
 */
export async function ensureDatabase(
  address: ServerAddress,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await withClient(address, signal, createDatabase);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof DatabaseError) || busyCodes.has(error.code ?? "")) return false;
    throw new EmbeddedError("start_failed", `PostgreSQL makes no database: ${error.message}`, {
      cause: error,
    });
  }
}

async function createDatabase(client: Client): Promise<void> {
  const found = await client.query("select from pg_database where datname = $1", [databaseName]);
  if (found.rowCount !== 0) return;
  await client.query(`create database ${databaseName}`).catch((error: unknown) => {
    if (!(error instanceof DatabaseError) || !duplicateCodes.has(error.code ?? "")) throw error;
  });
}

async function withClient(
  { socketDir, port }: ServerAddress,
  signal: AbortSignal,
  use: (client: Client) => Promise<unknown>,
): Promise<void> {
  // Our own socket: pg knows no AbortSignal, and its end() waits for a server that may have stopped
  // answering.
  const socket = new Socket();
  const client = new Client({
    ...connectionTo({ socketDir, port }),
    database: firstDatabase,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: queryTimeoutMs,
    stream: () => socket,
  });
  // A connection that breaks also rejects what waits on it; without a listener it would end the
  // process.
  client.on("error", () => {});
  const abort = () => socket.destroy(new Error("aborted"));
  signal.addEventListener("abort", abort, { once: true });
  try {
    await client.connect();
    await use(client);
    await client.end();
  } finally {
    signal.removeEventListener("abort", abort);
    socket.destroy();
  }
}
