// @ts-check
// Is what the load generator reports true? `node bench/load/self-check.js` exits with 0 only if it is.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { measureEcho } from "../echo-baseline.js";
import { Child } from "./child.js";
import { LoadClient } from "./client.js";
import { cpuSecondsOf, cpuSecondsOfTree } from "./cpu.js";
import { decodeReplyStatus, encodeRequestHeaders } from "./hpack.js";
import { decodeHuffman } from "./huffman.js";
import { GENERATED, makeCalls } from "./payloads.js";
import { messageBody } from "./stream.js";

/** @import { TestContext } from "node:test" */
/** @import { Plan } from "./run.js" */
/** @import { Call } from "./stream.js" */

/** @typedef {import("@grpc/grpc-js").handleUnaryCall<Buffer, Buffer>} Handler */

const MEGABYTE = 2 ** 20;
const PATH = "/check.Check/Call";

/**
 * A grpc-js server with one method on bytes.
 * @param {TestContext} t
 * @param {Handler} handler
 * @param {string} [address]
 */
async function serve(t, handler, address = "127.0.0.1:0") {
  const asIs = (/** @type {Buffer} */ bytes) => bytes;
  const method = {
    path: PATH,
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  const server = new Server();
  server.addService({ Call: method }, { Call: handler });
  t.after(() => server.forceShutdown());
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error) reject(error);
      else resolve(address.startsWith("unix:") ? address : `127.0.0.1:${port}`);
    });
  });
}

/**
 * A bare HTTP/2 server, for what grpc-js wouldn't do.
 * @param {TestContext} t
 * @param {import("node:http2").ServerOptions} options
 * @param {(stream: import("node:http2").ServerHttp2Stream) => void} onStream
 */
async function serveHttp2(t, options, onStream) {
  const server = http2.createServer(options);
  /** @type {Set<import("node:http2").ServerHttp2Session>} */
  const sessions = new Set();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    stream.on("error", () => {}); // the client cancels uploads that nobody wants
    onStream(stream);
  });
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const bound = server.address();
  assert(bound !== null && typeof bound === "object");
  return `127.0.0.1:${bound.port}`;
}

/**
 * @param {TestContext} t
 * @param {string} address
 * @param {Partial<Plan> & { connections?: number }} plan
 */
async function run(t, address, { connections = 1, ...plan }) {
  const client = await LoadClient.open({ address, connections });
  t.after(() => client.close());
  return client.run({ calls: [emptyCall()], inFlight: 16, seconds: 60, ...plan });
}

/** @returns {Call} */
function emptyCall() {
  return { path: PATH, body: messageBody(Buffer.alloc(0)) };
}

/** @param {number} bytes */
function patternedMessage(bytes) {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, index) => (index * 31) % 251));
}

/** @param {import("@grpc/grpc-js").status} code */
function failure(code) {
  return Object.assign(new Error("no"), {
    code,
    details: "it isn't {there}",
    metadata: new Metadata(),
  });
}

test("every call counted by the client was counted by the server, on both kinds of sockets", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "load-check-"));
  t.after(() => rm(directory, { recursive: true }));
  for (const where of ["127.0.0.1:0", `unix:${directory}/socket`]) {
    let served = 0;
    const address = await serve(
      t,
      (_call, reply) => reply(null, Buffer.alloc(served++ % 9)),
      where,
    );
    const result = await run(t, address, { count: 10_007, inFlight: 65, connections: 3 });
    assert.deepEqual([result.calls, result.errors, served], [10_007, 0, 10_007]);
    assert(result.p50Us > 0 && result.p50Us <= result.p99Us && result.p99Us <= result.maxUs);
  }
});

test("errors are counted by their codes, with and without headers before them", async (t) => {
  let served = 0;
  const address = await serve(t, (call, reply) => {
    served += 1;
    if (served % 5 === 0) call.sendMetadata(new Metadata());
    if (served % 5 === 0) reply(failure(status.NOT_FOUND));
    else if (served % 3 === 0) reply(failure(status.UNAUTHENTICATED));
    else reply(null, Buffer.from("x"));
  });
  const result = await run(t, address, { count: 3_000 });
  assert.deepEqual(result.errorCodes, { NOT_FOUND: 600, UNAUTHENTICATED: 800 });
  assert.deepEqual([result.calls, result.errors], [1_600, 1_400]);
  assert.equal(decodeURI(result.errorDetail), "it isn't {there}");
});

test("an unknown method is an error", async (t) => {
  const address = await serve(t, (_call, reply) => reply(null, Buffer.alloc(0)));
  const result = await run(t, address, {
    calls: [{ ...emptyCall(), path: "/no/such" }],
    count: 10,
  });
  assert.deepEqual(result.errorCodes, { UNIMPLEMENTED: 10 });
});

test("status 0 without a whole message is an error", async (t) => {
  const replies = [
    Buffer.alloc(0),
    Buffer.from([0, 0, 0, 0, 2, 7]),
    Buffer.from([1, 0, 0, 0, 1, 7]),
  ];
  let served = 0;
  const address = await serveHttp2(t, {}, (stream) => {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(replies[served++ % 3]);
  });
  const result = await run(t, address, { count: 30, inFlight: 1 });
  assert.deepEqual(result.errorCodes, { NO_MESSAGE: 10, BROKEN_MESSAGE: 20 });
});

test("an answer that isn't gRPC is an error", async (t) => {
  const address = await serveHttp2(t, {}, (stream) => {
    stream.respond({ ":status": 415 }, { endStream: true });
  });
  const result = await run(t, address, { count: 5 });
  assert.deepEqual(result.errorCodes, { HTTP_415: 5 });
});

test("a message in many small DATA frames is read to the last byte", async (t) => {
  const body = messageBody(patternedMessage(40));
  const address = await serveHttp2(t, {}, (stream) => {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    for (const byte of body) stream.write(Buffer.of(byte));
    stream.end();
  });
  const call = { ...emptyCall(), isRight: isPatterned(40) };
  const result = await run(t, address, { calls: [call], count: 200, sampleEvery: 1 });
  assert.deepEqual([result.calls, result.errors, result.sampled], [200, 0, 200]);
});

/**
 * @param {number} bytes
 * @returns {(reply: Buffer) => boolean}
 */
function isPatterned(bytes) {
  const expected = patternedMessage(bytes);
  return (reply) => reply.equals(expected);
}

test("a megabyte goes up and comes down unchanged", async (t) => {
  const address = await serve(t, (call, reply) => reply(null, call.request));
  const call = {
    path: PATH,
    body: messageBody(patternedMessage(MEGABYTE)),
    isRight: isPatterned(MEGABYTE),
  };
  const result = await run(t, address, {
    calls: [call, emptyCall()],
    count: 200,
    connections: 2,
    sampleEvery: 1,
  });
  assert.deepEqual([result.calls, result.errorCodes, result.sampled], [200, {}, 200]);
});

test("more than the connection's window comes down: it is given back", async (t) => {
  const big = Buffer.alloc(64 * MEGABYTE);
  const address = await serve(t, (_call, reply) => reply(null, big));
  const result = await run(t, address, { count: 40, inFlight: 2, seconds: 60 });
  assert.deepEqual([result.calls, result.errorCodes], [40, {}]);
});

test("an upload keeps to the server's windows, also when they change", async (t) => {
  let served = 0;
  const address = await serveHttp2(t, { settings: { initialWindowSize: 1_000 } }, (stream) => {
    const windows = [1_000, 70_000, 100, 9_999];
    stream.session?.settings({ initialWindowSize: windows[served++ % 4] ?? 0 });
    let received = 0;
    stream.on("data", (/** @type {Buffer} */ part) => {
      received += part.length;
    });
    stream.on("end", () => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      const size = Buffer.alloc(4);
      size.writeUInt32BE(received);
      stream.end(messageBody(size));
    });
  });
  const body = messageBody(patternedMessage(60_000));
  const call = {
    path: PATH,
    body,
    isRight: (/** @type {Buffer} */ reply) => reply.readUInt32BE(0) === body.length,
  };
  const result = await run(t, address, { calls: [call], count: 100, inFlight: 8, sampleEvery: 1 });
  assert.deepEqual([result.calls, result.errorCodes, result.sampled], [100, {}, 100]);
});

test("an upload that the server doesn't want to the end is given up", async (t) => {
  const address = await serveHttp2(t, {}, (stream) => {
    stream.respond({ ":status": 200, "grpc-status": "8" }, { endStream: true });
  });
  const calls = [{ path: PATH, body: messageBody(Buffer.alloc(MEGABYTE)) }];
  const result = await run(t, address, { calls, count: 50, inFlight: 4 });
  assert.deepEqual(result.errorCodes, { RESOURCE_EXHAUSTED: 50 });
});

test("a wrong reply is an error", async (t) => {
  const address = await serve(t, (_call, reply) => reply(null, Buffer.from("wrong")));
  const wrong = { ...emptyCall(), isRight: (/** @type {Buffer} */ reply) => reply.length === 0 };
  const undecodable = { ...emptyCall(), isRight: () => assert.fail() };
  const calls = [wrong, undecodable];
  const result = await run(t, address, { calls, count: 100, sampleEvery: 5 });
  assert.deepEqual([result.calls, result.errorCodes], [80, { WRONG_REPLY: 20 }]);
});

test("RST_STREAM and GOAWAY are errors", async (t) => {
  let served = 0;
  const address = await serveHttp2(t, {}, (stream) => {
    if (served++ < 10) stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    else stream.session?.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });
  const result = await run(t, address, { count: 12, inFlight: 1 });
  assert.deepEqual(result.errorCodes, { RST_STREAM_7: 10, GOAWAY_11: 1 });
});

test("a server's ping is answered", async (t) => {
  /** @type {(error: Error | null) => void} */
  let ponged = () => {};
  const pong = new Promise((resolve) => {
    ponged = resolve;
  });
  const address = await serveHttp2(t, {}, (stream) => {
    stream.session?.ping((error) => {
      stream.respond({ ":status": 200, "grpc-status": "5" }, { endStream: true });
      ponged(error);
    });
  });
  const result = await run(t, address, { count: 1 });
  assert.equal(await pong, null);
  assert.deepEqual(result.errorCodes, { NOT_FOUND: 1 });
});

test("a killed server ends the run at once, with every call accounted for", async (t) => {
  const server = new Child(new URL("../echo-server.js", import.meta.url));
  t.after(() => server.stop("SIGKILL"));
  const ready = await server.firstLine(10_000);
  const { address } = /** @type {{ address: string }} */ (ready); // as echo-server.js prints it
  setTimeout(() => server.stop("SIGKILL"), 500);
  const calls = [{ ...emptyCall(), path: "/bench.Echo/Echo" }];
  const result = await run(t, address, { calls, connections: 2, seconds: 30 });
  assert(result.calls > 0, `${result.calls} calls`);
  assert(result.wallSeconds < 5, `${result.wallSeconds} s`);
  assert(result.errors >= 1 && result.errors <= 16, JSON.stringify(result.errorCodes));
  assert.match(Object.keys(result.errorCodes).join(), /^CONNECTION_LOST/);
});

test("a server that never answers doesn't hold a run for ever", async (t) => {
  const address = await serve(t, () => {});
  const result = await run(t, address, { seconds: 0.2, inFlight: 7 });
  assert.deepEqual([result.calls, result.errorCodes], [0, { UNANSWERED: 7 }]);
});

test("a run ends when its time is over", async (t) => {
  const address = await serve(t, (_call, reply) => reply(null, Buffer.alloc(0)));
  const result = await run(t, address, { seconds: 1, connections: 2 });
  assert(result.wallSeconds >= 1 && result.wallSeconds < 4, `${result.wallSeconds} s`);
  assert.equal(result.errors, 0);
});

test("a fixed rate is kept", async (t) => {
  const address = await serve(t, (_call, reply) => reply(null, Buffer.alloc(0)));
  const result = await run(t, address, { count: 500, rate: 500, connections: 2 });
  assert.deepEqual([result.calls, result.errors], [500, 0]);
  assert(result.wallSeconds >= 1 && result.wallSeconds < 4, `${result.wallSeconds} s`);
});

test("at a fixed rate, waiting for a slow server counts as latency", async (t) => {
  const address = await serve(t, (_call, reply) => {
    setTimeout(() => reply(null, Buffer.alloc(0)), 20);
  });
  const result = await run(t, address, { count: 50, seconds: 5, rate: 1_000, inFlight: 1 });
  assert.deepEqual([result.calls, result.errors], [50, 0]);
  assert(result.maxUs > 500_000, `${result.maxUs} µs`); // the 50th waited for 49 others
});

test("calls that a rate demanded but that found no time are errors", async (t) => {
  const address = await serve(t, (_call, reply) => {
    setTimeout(() => reply(null, Buffer.alloc(0)), 20);
  });
  const result = await run(t, address, { seconds: 0.5, rate: 1_000, inFlight: 1 });
  assert.deepEqual(Object.keys(result.errorCodes), ["NOT_SENT"]);
  const demanded = result.calls + result.errors;
  assert(result.calls <= 25 && demanded > 250 && demanded <= 500, JSON.stringify(result));
});

test("more calls in flight than the server allows are refused before they are sent", async (t) => {
  const address = await serveHttp2(t, { settings: { maxConcurrentStreams: 10 } }, () => {});
  await assert.rejects(run(t, address, { inFlight: 11 }), /the server allows 10/);
});

test("load goes to this machine only", async () => {
  await assert.rejects(LoadClient.open({ address: "192.0.2.1:50051" }), /isn't on this machine/);
});

test("nobody there is an error, not a wait", async () => {
  await assert.rejects(LoadClient.open({ address: "127.0.0.1:1" }), /ECONNREFUSED/);
});

test("header fields are decoded as RFC 7541 and nghttp2 write them", () => {
  const bytes = (/** @type {string} */ hex) => Buffer.from(hex.replaceAll(" ", ""), "hex");
  // RFC 7541, appendix C.4 and C.6
  assert.equal(decodeHuffman(bytes("f1e3 c2e5 f23a 6ba0 ab90 f4ff")), "www.example.com");
  assert.equal(
    decodeHuffman(bytes("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3")),
    "https://www.example.com",
  );
  assert.throws(() => decodeHuffman(bytes("f1e3 c2e5 f23a 6ba0 ab90 f400")), /padding|ASCII/);
  // A table size update, :status 200, then literals with plain and with Huffman-coded strings.
  const plain = "00 0b 677270632d737461747573 02 3133";
  assert.deepEqual(decodeReplyStatus(bytes(`20 88 ${plain}`)), {
    httpStatus: 200,
    grpcStatus: 13,
    grpcMessage: "",
  });
  assert.equal(decodeReplyStatus(bytes("48 03 353033")).httpStatus, 503);
  assert.throws(() => decodeReplyStatus(bytes("be")), /dynamic/);
  assert.throws(() => decodeReplyStatus(bytes("00 0b 677270632d737461747573 01 78")), /"x"/);
});

test("what we encode, node:http2 decodes: long values too", async (t) => {
  const long = "v".repeat(5_000);
  /** @type {import("node:http2").IncomingHttpHeaders | undefined} */
  let seen;
  const server = http2.createServer();
  server.on("stream", (stream, headers) => {
    seen = headers;
    stream.respond({ ":status": 200, "grpc-status": "5" }, { endStream: true });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  t.after(() => server.close());
  const bound = server.address();
  const address = `127.0.0.1:${typeof bound === "object" ? bound?.port : ""}`;
  const client = await LoadClient.open({ address, metadata: { authorization: long } });
  await client.run({ calls: [emptyCall()], inFlight: 1, seconds: 5, count: 1 });
  client.close();
  assert.equal(seen?.["authorization"], long);
  assert.equal(seen?.[":path"], PATH);
  assert.equal(seen?.[":authority"], address);
  assert.equal(seen?.["content-type"], "application/grpc");
  assert(encodeRequestHeaders(PATH, address, {}).length < 150);
});

test("the same seed makes the same calls, and they know a right reply from a wrong one", async (t) => {
  if (!existsSync(GENERATED)) return t.skip("run `npm run build` first");
  /** @type {import("./payloads.js").Generated} */
  const generated = await import(GENERATED.href);
  const [sets, again, gets] = await Promise.all(
    [{ Set: 1 }, { Set: 1 }, { Get: 1 }].map((rpcs) =>
      makeCalls({ kind: "pluginstate", rpcs, keys: 300 }),
    ),
  );
  const first = sets?.[0];
  assert(sets?.length === 300 && first !== undefined);
  assert.deepEqual(sets.map(bodyText), again?.map(bodyText));
  const { key, valueJson } = fromBinary(generated.SetRequestSchema, first.body.subarray(5));
  const reply = (/** @type {string} */ text) =>
    Buffer.from(
      toBinary(
        generated.GetResponseSchema,
        create(generated.GetResponseSchema, { entry: { key, valueJson: text } }),
      ),
    );
  const asJsonbWritesIt = JSON.stringify(JSON.parse(valueJson), null, 1);
  assert.equal(gets?.[0]?.isRight?.(reply(asJsonbWritesIt)), true);
  assert.equal(gets?.[0]?.isRight?.(reply('{"id":0}')), false);
  assert.equal(gets?.[0]?.isRight?.(Buffer.alloc(0)), false);
});

/** @param {Call} call */
function bodyText(call) {
  return `${call.path} ${call.body.toString("latin1")}`;
}

test("the worker measures the echo, and CPU that adds up", async () => {
  const result = await measureEcho({
    inFlight: 16,
    seconds: 1,
    warmupSeconds: 0.5,
    sampleEvery: 10,
  });
  assert.equal(result.errors, 0);
  assert(result.calls > 100 && result.sampled > 10);
  assert(result.cpuSeconds > 0 && result.cpuShare < 1);
  if (process.platform === "linux") assert((result.cpuOf["server"]?.seconds ?? 0) > 0);
});

test("CPU of a process and of its descendants", { skip: process.platform !== "linux" }, () => {
  const own = process.cpuUsage();
  const seconds = cpuSecondsOf(process.pid) ?? 0;
  assert(Math.abs(seconds - (own.user + own.system) / 1e6) < 0.1);
  assert((cpuSecondsOfTree(process.pid) ?? 0) >= seconds);
  assert.equal(cpuSecondsOf(2 ** 30), undefined);
});
