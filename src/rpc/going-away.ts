import type { ServerHttp2Session } from "node:http2";
import { Socket } from "node:net";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { Server } from "@grpc/grpc-js";

/** How long clients may take to show that they have read the news. One that hangs isn't waited for. */
const patienceMs = 1_000;
/** How often a quiet moment of a connection is looked for: a tenth of a second, about. */
const maxLooks = 200;

/**
 * Tells every client of a server that its connection ends, and waits until they know it. Calls that
 * they began before are served like any other; new ones they make elsewhere.
 *
 * This is the first of the two GOAWAYs of RFC 9113, 6.8: "open no more streams, every one that you
 * opened counts"; a round trip later comes the one that names the last stream. With the second alone
 * the calls that are on their way to the server at that moment are refused. Most clients then repeat
 * them unasked, but not all, and they must first find out.
 *
 * Under TLS nobody is told, and the second GOAWAY is the only one: see {@link plainSocketOf}.
 */
export async function announceEnd(server: Server): Promise<void> {
  // A connection's first frame is SETTINGS, and node:http2 writes it in the turn after the accept.
  await nextTurn();
  const limit = new AbortController();
  const patience = sleep(patienceMs, undefined, { signal: limit.signal }).catch(() => {});
  const announced = sessionsOf(server).map((session) => announce(session, limit.signal));
  await Promise.race([Promise.all(announced), patience]);
  limit.abort();
}

/** A GOAWAY frame of connection 0: 8 bytes, the highest number a stream can have, NO_ERROR. */
const goAway = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
const pingBytes = 17;

async function announce(session: ServerHttp2Session, signal: AbortSignal): Promise<void> {
  const socket = plainSocketOf(session);
  if (socket === undefined) return;
  await quietMoment(session, socket);
  // Too late is never: a second GOAWAY may name no higher stream than the one before.
  if (signal.aborted || session.closed || !socket.writable) return;
  socket.write(goAway);
  await answered(session);
}

/**
 * Waits until a client has sent all that it had to send, and has been sent nothing since that it could
 * act on. Calls that it has begun but not sent when it reads a GOAWAY, its own HTTP/2 library gives up,
 * and node's up to 20.16 and 22.12 (not 20.18.3 and 24) says INTERNAL to that, which nobody retries. Most
 * are begun when replies arrive, so the frame shouldn't come with replies: that made such calls five
 * times rarer. A timer that begins one at the wrong moment can't be helped from here.
 */
async function quietMoment(session: ServerHttp2Session, socket: Socket): Promise<void> {
  await answered(session);
  for (let look = 0; look < maxLooks && socket.writable; look++) {
    const before = socket.bytesWritten;
    await answered(session);
    if (socket.bytesWritten <= before + pingBytes) return;
  }
}

/** Settles when the other side has answered a PING, and so has read all that was sent before it. */
function answered(session: ServerHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    // Its callback is called too when the connection closes first.
    if (session.destroyed || session.closed || !session.ping(() => resolve())) resolve();
  });
}

/**
 * The socket of a connection in the clear. The frame is written on it beside node:http2, which ignores
 * every new stream from the moment on at which it sends any GOAWAY, the one with the highest number
 * too: calls would hang (20.11 to 24; nghttp2's own shutdown notice isn't to be reached). What
 * node:http2 writes is always whole frames, so the frame can't fall into the middle of one.
 *
 * `session.socket` is a proxy that refuses to write. A test notices if the private symbol goes.
 */
function plainSocketOf(session: ServerHttp2Session): Socket | undefined {
  if (session.encrypted === true) return undefined;
  const symbols = Object.getOwnPropertySymbols(session);
  const key = symbols.find(({ description }) => description === "socket");
  const socket: unknown = key === undefined ? undefined : Reflect.get(session, key);
  return socket instanceof Socket ? socket : undefined;
}

/** The open connections, which grpc-js keeps in a private field. A test notices if it goes. */
function sessionsOf(server: Server): ServerHttp2Session[] {
  const servers: unknown = Reflect.get(server, "http2Servers");
  if (!(servers instanceof Map)) return [];
  return [...servers.values()].flatMap(({ sessions }: { sessions: Set<ServerHttp2Session> }) => [
    ...sessions,
  ]);
}
