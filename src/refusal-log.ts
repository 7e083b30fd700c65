import type { Log } from "./log.ts";
import type { Refusal } from "./rpc/connections.ts";

/** At most one line in this time: whoever is refused may try again as fast as he can. */
const everyMs = 10_000;

/** Also a call whose token isn't good. */
type Refused = Refusal | "token";

const meanings: Readonly<Record<Refused, string>> = {
  connection: "closed connections: there are as many as --max-connections allows",
  handshake: "closed connections whose client said nothing of HTTP/2 in time",
  age: "ended calls that were open for longer than --max-call-ms",
  request: "refused calls of a connection with too many bytes of open requests",
  reply: "refused calls of a connection with too many bytes of unread replies",
  stream: "refused streams of a connection with too many of them",
  unread: "closed connections whose client doesn't read",
  token: "refused calls without a good token",
};

/** Logs what clients were kept from: a line for each kind and some seconds, with their number. */
export function refusalLog(log: Log): (refusal: Refused) => void {
  const counts = new Map<Refused, { since: number; count: number }>();
  return (refusal) => {
    const now = performance.now();
    const seen = counts.get(refusal);
    if (seen !== undefined && now - seen.since < everyMs) {
      seen.count += 1;
      return;
    }
    // Those that the last line didn't count are in this one.
    log.warn({ refusal, times: 1 + (seen?.count ?? 0) }, meanings[refusal]);
    counts.set(refusal, { since: now, count: 0 });
  };
}
