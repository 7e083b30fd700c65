import type { ServerHttp2Session } from "node:http2";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";

/** How long clients may take to answer. One that hangs isn't waited for. */
const patienceMs = 1_000;
/** How often a quiet moment of a connection is looked for: a tenth of a second, about. */
const maxLooks = 200;
const pingBytes = 17;

/**
 * Waits for a good moment to say goodbye on each of these connections: when its client has sent all that
 * it had to send, and has been sent nothing since that it could act on.
 *
 * A GOAWAY names the last call that is served. Those on their way to the server at that moment aren't:
 * clients know that they were never begun, and repeat them unasked. Calls that were begun but not sent
 * when a client reads a GOAWAY, its own HTTP/2 library gives up, and node's up to 20.16 and 22.12 (not
 * 20.18.3 and 24) says INTERNAL to that, which nobody retries. Most of either kind are begun when replies
 * arrive, so the frame shouldn't come with replies: that made the latter five times rarer.
 *
 * The first of the two GOAWAYs of RFC 9113, 6.8, "every call that you began counts", can't be had:
 * node:http2 ignores new streams from any GOAWAY on, and beneath it nothing may be written (docs/internals.md).
 */
export async function quietMoment(sessions: readonly ServerHttp2Session[]): Promise<void> {
  // A connection's first frame is SETTINGS, and node:http2 writes it in the turn after the accept.
  await nextTurn();
  const limit = new AbortController();
  const patience = sleep(patienceMs, undefined, { signal: limit.signal }).catch(() => {});
  await Promise.race([Promise.all(sessions.map(quiet)), patience]);
  limit.abort();
}

async function quiet(session: ServerHttp2Session): Promise<void> {
  await answered(session);
  for (let look = 0; look < maxLooks && isOpen(session); look++) {
    const before = bytesWritten(session);
    await answered(session);
    if (bytesWritten(session) <= before + pingBytes) return;
  }
}

/** Settles when the other side has answered a PING, and so has read all that was sent before it. */
function answered(session: ServerHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    // Its callback is called too when the connection closes first.
    if (!isOpen(session) || !session.ping(() => resolve())) resolve();
  });
}

function isOpen(session: ServerHttp2Session): boolean {
  return !session.destroyed && !session.closed;
}

function bytesWritten(session: ServerHttp2Session): number {
  return isOpen(session) ? session.socket.bytesWritten : 0;
}
