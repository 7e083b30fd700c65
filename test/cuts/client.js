// @ts-check
// A client that makes calls and then treats its connections badly, in a process of its own so that it can
// be frozen. Its argument says what to do; it says `sent` on stdout when its requests are on their way.

import { once } from "node:events";
import { connect } from "node:http2";
import { connect as connectSocket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";

/** @import { ClientHttp2Session, ClientHttp2Stream } from "node:http2" */
/** @import { Calls, Script } from "./clients.ts" */

/** @type {Script} */
const { behaviour, window, blockedMs, connections } = JSON.parse(process.argv[2] ?? "");

/** The largest that node lets a client keep, in MB: what isn't read mustn't be an error of the client. */
const maxSessionMemory = 4_096;

// Whatever becomes of its connections, it goes on until it is ended.
setInterval(() => {}, 1_000);

const sessions = await Promise.all(connections.map(open));
const streams = sessions.flatMap(({ session, calls }) =>
  calls.flatMap((call) => begin(session, call)),
);
await Promise.all(streams.map(({ sent }) => sent));
await nextTurn();
process.stdout.write("sent\n");

switch (behaviour) {
  case "reads":
    for (const { stream } of streams) stream.resume();
    break;
  case "unread":
    break;
  case "blocked":
    block(blockedMs);
    for (const { stream } of streams) stream.resume();
    break;
  case "slow":
    for (const { stream } of streams) stream.on("data", () => block(5)).resume();
    break;
  case "vanishes":
    block(blockedMs);
    process.kill(process.pid, "SIGKILL");
    break;
  case "frozen":
    process.kill(process.pid, "SIGSTOP");
    for (const { stream } of streams) stream.resume();
    break;
}

/** @param {Script["connections"][number]} connection */
async function open({ address, isSecure, calls }) {
  const path = address.startsWith("unix:") ? address.slice("unix:".length) : undefined;
  const session = connect(
    path ? "http://localhost" : `${isSecure ? "https" : "http"}://${address}`,
    {
      rejectUnauthorized: false,
      maxSessionMemory,
      settings: { initialWindowSize: window },
      ...(path && { createConnection: () => connectSocket(path) }),
    },
  );
  session.on("error", () => {});
  await once(session, "remoteSettings");
  session.setLocalWindowSize(window);
  return { session, calls };
}

/**
 * @param {ClientHttp2Session} session
 * @param {Calls} calls
 */
function begin(session, { path, message, count, headers }) {
  return Array.from({ length: count }, () => {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    stream.on("error", () => {});
    const sent = new Promise((resolve) => {
      stream.once("close", resolve);
      stream.end(Buffer.from(message, "base64"), () => resolve(undefined));
    });
    return { stream, sent };
  });
}

/**
 * Lets the thread do nothing: what comes stays in the socket.
 * @param {number} ms
 */
function block(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
