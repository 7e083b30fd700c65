import pg from "pg";
import { ownSession } from "./open-session.ts";
import { Sockets } from "./sockets.ts";

/** Where a database is, and what may be asked of the way to it. */
export interface Connection extends pg.ClientConfig {
  /** False: no named statements, for poolers that lose them between two transactions. */
  readonly namedStatements?: boolean;
}

/** A connection that isn't open after this will hardly be: whoever waits for the database tries again. */
const connectMs = 10_000;

/**
 * Opens one connection of its own, runs `work` on it, and closes it. Its session has the settings that ours
 * need, unless a pooler is in between.
 *
 * @param signal Cuts the connection when it aborts, whatever is waited for: then this rejects with its reason.
 */
export async function withClient<T>(
  connection: Connection,
  work: (client: pg.Client) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  signal?.throwIfAborted();
  const sockets = new Sockets();
  const client = new pg.Client({
    application_name: "plugin-state-sidecar",
    connectionTimeoutMillis: connectMs,
    ...connection,
    stream: () => sockets.make(),
  });
  // A connection that breaks is also an event; without a listener it would end the process.
  client.on("error", () => undefined);
  const cut = () => sockets.shut();
  signal?.addEventListener("abort", cut);
  try {
    await client.connect();
    await ownSession(client);
    return await work(client);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    // A network that has fallen silent may keep it from ending.
    await client.end().catch(() => undefined);
    signal?.removeEventListener("abort", cut);
  }
}
