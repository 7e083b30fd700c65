import type { ClientBase } from "pg";
import type { Log } from "../log.ts";
import { isConnectionLost } from "./errors.ts";
import { checkStandby, prepareSession } from "./statements.ts";

/**
 * Makes a connection what its statements need, before anything else is done with it.
 *
 * @param timeoutMs How long each of two statements may take.
 * @throws on a standby, which may not have yet what was acknowledged, or never get it; and what pg throws
 *   when the connection is lost.
 */
export async function openSession(
  client: ClientBase,
  { timeoutMs, log }: { timeoutMs: number; log: Log },
): Promise<void> {
  const asked = { text: checkStandby.text, query_timeout: timeoutMs };
  const { rows } = await client.query<{ standby: boolean }>(asked);
  if (rows[0]?.standby !== false) {
    throw new Error("the server is a standby");
  }
  try {
    const prepared = { text: prepareSession.text, query_timeout: timeoutMs };
    await client.query(prepared);
  } catch (error) {
    if (isConnectionLost(error)) {
      throw error;
    }
    // A database that is like PostgreSQL, but hasn't all of its settings.
    log.debug({ err: error }, "could not prepare the session");
  }
}
