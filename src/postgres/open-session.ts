import type { ClientBase, QueryResult } from "pg";
import type { Log } from "../log.ts";
import { isConnectionLost, sqlState } from "./errors.ts";
import { settleSession } from "./session-settings.ts";
import { checkStandby, prepareSession } from "./statements.ts";

/**
 * Makes a connection what its statements need, before anything else is done with it.
 *
 * @param timeoutMs How long each of three statements may take.
 * @throws on a standby, which may not have yet what was acknowledged, or never get it; and what pg throws
 *   when the connection is lost.
 */
export async function openSession(
  client: ClientBase,
  { timeoutMs, log }: { timeoutMs: number; log: Log },
): Promise<void> {
  const { standby, isDirect } = await askServer(client, timeoutMs);
  if (standby) {
    throw new Error("the server is a standby");
  }
  if (isDirect) {
    await prepare(client, settleSession, { timeoutMs, log });
  }
  await prepare(client, prepareSession.text, { timeoutMs, log });
}

/**
 * Makes the settings of a session of its own what ours need, whatever its role begins with. Behind a
 * pooler it changes nothing: the session may be somebody else's a moment later.
 *
 * @throws what pg throws when the connection is lost.
 */
export async function ownSession(client: ClientBase): Promise<void> {
  const { isDirect } = await askServer(client);
  if (isDirect) {
    await client.query(settleSession);
  }
}

interface ServerRow {
  readonly standby: boolean;
  readonly pid: number;
}

async function askServer(client: ClientBase, timeoutMs?: number) {
  const asked = { text: checkStandby.text, query_timeout: timeoutMs };
  // A message of several statements has a result of each; pg's types don't know of it.
  const results = (await client.query(asked)) as unknown as readonly QueryResult<ServerRow>[];
  const row = results.at(-1)?.rows[0];
  return { standby: row?.standby !== false, isDirect: row?.pid === processIdOf(client) };
}

/**
 * What the server called this connection's process. A pooler makes one up, so it differs from
 * `pg_backend_pid()` where one is in between. pg's types don't show it.
 */
export function processIdOf(client: ClientBase): number {
  return (client as unknown as { processID: number }).processID;
}

const queryCanceled = "57014";

async function prepare(
  client: ClientBase,
  text: string,
  { timeoutMs, log }: { timeoutMs: number; log: Log },
): Promise<void> {
  try {
    const bounded = { text, query_timeout: timeoutMs };
    await client.query(bounded);
  } catch (error) {
    if (isConnectionLost(error) || sqlState(error) === queryCanceled) {
      throw error;
    }
    // A database that is like PostgreSQL, but hasn't all of its settings.
    log.debug({ err: error }, "could not prepare the session");
  }
}
