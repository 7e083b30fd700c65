import { once } from "node:events";
import { constants } from "node:http2";
import { connect } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { serve } from "../faults/serve.ts";
import { testDatabase } from "../support/database.ts";
import { WatchedSidecar } from "../support/watched-sidecar.ts";
import { frame, preface, socketTo } from "./raw-client.ts";

const types = { headers: 1, rstStream: 3, settings: 4, pushPromise: 5, goaway: 7 };
const endHeaders = constants.NGHTTP2_FLAG_END_HEADERS;
/** POST, http and / by their numbers in HPACK's static table, and the authority "a". */
const request = Buffer.from([0x83, 0x86, 0x84, 0x41, 0x01, 0x61]);

const settings = frame(types.settings, 0, 0, Buffer.alloc(0));
const goaway = frame(types.goaway, 0, 0, Buffer.alloc(8));
const angryGoaway = frame(types.goaway, 0, 0, Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]));
const call = (stream: number) => frame(types.headers, endHeaders, stream, request);
const reset = (stream: number) => frame(types.rstStream, 0, stream, Buffer.from([0, 0, 0, 8]));
/** What a client may not send, and too short. */
const push = frame(types.pushPromise, 0, 1, Buffer.alloc(0));

// Each is one packet, and all but the last abort a plain server of Node.js 20.20.2.
test.for([
  ["says goodbye, then makes a call", [goaway, call(1)]],
  ["says goodbye, resets a call, then makes another", [call(1), goaway, reset(1), call(3)]],
  ["says goodbye, and resets the call it made then", [goaway, call(1), reset(1)]],
  ["says goodbye with an error, then makes a call", [angryGoaway, call(1)]],
] as const)(
  "a client that %s, and pushes, ends its own connection and nothing else",
  async ([, frames]) => {
    const database = await testDatabase();
    onTestFinished(() => database[Symbol.asyncDispose]());
    await database.addPlugin("demo");
    await using sidecar = await serve(database.url);
    const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
    await sidecar.client.call("set", { ...name, valueJson: "1" });
    const socket = await socketTo(sidecar.address);
    socket.resume();

    socket.write(Buffer.concat([preface, settings, ...frames, push]));
    await once(socket, "close");

    expect((await sidecar.client.call("get", name)).entry?.valueJson).toBe("1");
  },
);

// With what node keeps of each, and nobody collects, they would be 5 MB.
test("1000 clients that say something else than HTTP/2 and are gone by the time it's read leave nothing", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  await using sidecar = await WatchedSidecar.start(database.url);
  const clients = 100;
  const meet = async () => {
    await sidecar.stoppedDuring(() => babble(sidecar.address, clients));
    return await sidecar.heapUsed();
  };
  const before = await meet();

  for (let n = 0; n < 1_000; n += clients) {
    await meet();
  }

  await expect.poll(() => sidecar.heapUsed()).toBeLessThan(before + 2 * 1024 * 1024);
});

async function babble(address: string, clients: number): Promise<void> {
  const [host, port] = address.split(":");
  const sockets = Array.from({ length: clients }, () => connect(Number(port), host));
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  for (const socket of sockets) {
    socket.write("Something else, longer than a frame's head");
    socket.resetAndDestroy();
  }
}
