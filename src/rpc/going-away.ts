import type { ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { Server } from "@grpc/grpc-js";

/** How long a client may take to show that it has read the news. One that hangs isn't waited for. */
const patienceMs = 1_000;

/**
 * Tells every client of a server that its connection ends, and waits until they know it. Calls that
 * they began before are served like any other; new ones they make elsewhere.
 *
 * This is the first of the two GOAWAYs of RFC 9113, 6.8: "open no more streams, every one that you
 * opened counts", then, a round trip later, the one that names the last stream. With the second alone
 * the calls that are on their way to the server at that moment are refused. Most clients then repeat
 * them unasked, but not all, and they must first find out.
 *
 * The frame is written beside node:http2, which ignores every new stream from the moment on at which
 * it sends any GOAWAY, the one with the highest number too, so that those calls would hang
 * (20.11 to 24; nghttp2's own shutdown notice isn't to be reached). What node:http2 writes on a socket is
 * always whole frames, so there is none that this could fall into the middle of. Under TLS the
 * frames are inside of records: nobody is told there, and the second GOAWAY is the only one.
 *
 * @param sockets Those of the server's connections that carry HTTP/2 in the clear.
 */
export async function announceEnd(server: Server, sockets: Iterable<Socket>): Promise<void> {
  // A connection's first frame is SETTINGS, and node:http2 writes it in the turn after the accept.
  await nextTurn();
  for (const socket of sockets) {
    if (socket.writable) socket.write(goAway);
  }
  const limit = new AbortController();
  const answers = Promise.all(sessionsOf(server).map(answered));
  const patience = sleep(patienceMs, undefined, { signal: limit.signal }).catch(() => {});
  await Promise.race([answers, patience]);
  limit.abort();
}

/** A GOAWAY frame of connection 0: 8 bytes, the highest number a stream can have, NO_ERROR. */
const goAway = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

/** Settles when the other side has answered a PING, and so has read all that was sent before it. */
function answered(session: ServerHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    if (session.destroyed || session.closed || session.encrypted === true) return resolve();
    session.once("close", resolve);
    if (!session.ping(() => resolve())) resolve();
  });
}

/** The open connections. grpc-js has them in a private field; a test notices if it goes. */
function sessionsOf(server: Server): ServerHttp2Session[] {
  const servers: unknown = Reflect.get(server, "http2Servers");
  if (!(servers instanceof Map)) return [];
  return [...servers.values()].flatMap(({ sessions }: { sessions: Set<ServerHttp2Session> }) => [
    ...sessions,
  ]);
}
