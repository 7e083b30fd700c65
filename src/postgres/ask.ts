import pg from "pg";
import type { Connection } from "./connection.ts";
import { Sockets } from "./sockets.ts";
import type { Statement } from "./statements.ts";

/** How long a question may take, connection and all, and what ends it before. */
export interface AskOptions {
  readonly withinMs: number;
  readonly signal: AbortSignal;
}

/**
 * Asks a database over a connection of its own, which is made for it and ended after it.
 *
 * @throws pg's error, or one that says that there was no answer.
 */
export async function ask<Row extends pg.QueryResultRow>(
  connection: Connection,
  { text }: Statement,
  { withinMs, signal }: AskOptions,
): Promise<Row | undefined> {
  const sockets = new Sockets();
  const client = new pg.Client({
    ...connection,
    application_name: "plugin-state-sidecar",
    stream: () => sockets.make(),
  });
  // The question rejects with the same error.
  client.on("error", () => undefined);
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    sockets.shut();
  }, withinMs);
  const shut = () => sockets.shut();
  signal.addEventListener("abort", shut);
  try {
    signal.throwIfAborted();
    await client.connect();
    const { rows } = await client.query<Row>(text);
    return rows[0];
  } catch (cause) {
    throw isLate ? new Error(`no answer in ${withinMs} ms`, { cause }) : cause;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", shut);
    // Every answer that was waited for is here, so nothing is lost with it.
    void client.end().catch(() => undefined);
    sockets.shut();
  }
}
