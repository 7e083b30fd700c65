import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { ClientHttp2Stream } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  type handleUnaryCall,
  type Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from "@grpc/grpc-js";
import { afterEach, expect, onTestFinished, test } from "vitest";
import { ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import type { Refusal } from "../../src/rpc/connections.ts";
import { HealthService } from "../../src/rpc/health.ts";
import { HeldBytes } from "../../src/rpc/held-bytes.ts";
import { boundTimeout } from "../../src/rpc/http2-servers.ts";
import { parseListenAddress } from "../../src/rpc/listen-address.ts";
import { drain, type ListenOptions, listen } from "../../src/rpc/listener.ts";
import { createGrpcServer, type ServerLimits } from "../../src/rpc/server-options.ts";
import { overloaded } from "../../src/service/overloaded.ts";
import { completeStatus } from "../../src/service/status.ts";
import { dial, methodAt, unary } from "./peers.ts";
import { frame, grpcMessage, open, preface, sessionTo, socketTo, statusOf } from "./raw-client.ts";

const { list } = Health.method;
const refusals: Refusal[] = [];
const mib = 1024 * 1024;

afterEach(() => void refusals.splice(0));

/** A server of health and of three methods of bytes, with small bounds. */
async function serve(limits: Partial<ServerLimits> = {}, options: ListenOptions = {}) {
  const onRefused = (refusal: Refusal) => void refusals.push(refusal);
  const server = createGrpcServer({
    maxReceiveBytes: 2 * mib,
    maxSendBytes: -1,
    maxConcurrentStreams: 1_024,
    maxHeldBytes: 4 * mib,
    onRefused,
    ...limits,
  });
  onTestFinished(async () => void (await drain(server, 0)));
  new HealthService([]).addTo(server);
  const calls = addTestService(server);
  const listener = await listen(server, parseListenAddress("127.0.0.1:0"), {
    onRefused,
    ...options,
  });
  return { address: listener.address, calls };
}

/** Size answers with its length, Large with 1 MiB, Never not at all. */
function addTestService(server: Server): ServerUnaryCall<Buffer, Buffer>[] {
  const unanswered: ServerUnaryCall<Buffer, Buffer>[] = [];
  const method = (name: string) => methodAt(`/test.Test/${name}`);
  const size: handleUnaryCall<Buffer, Buffer> = (call, done) =>
    done(null, Buffer.from(String(call.request.length)));
  const large: handleUnaryCall<Buffer, Buffer> = (_call, done) => done(null, Buffer.alloc(mib));
  const never: handleUnaryCall<Buffer, Buffer> = (call) => void unanswered.push(call);
  server.addService(
    { size: method("Size"), large: method("Large"), never: method("Never") },
    { size, large, never },
  );
  return unanswered;
}

/** A client that behaves, and calls all the time: every one of its calls must succeed. */
function goodClient(address: string): { stop: () => Promise<number> } {
  const client = dial(address);
  let running = true;
  const calling = (async () => {
    let count = 0;
    while (running) {
      await unary(client, list, {});
      count += 1;
    }
    return count;
  })();
  // An early failure is reported by stop.
  calling.catch(() => {});
  return {
    stop: async () => {
      running = false;
      const count = await calling;
      expect(count).toBeGreaterThan(0);
      return count;
    },
  };
}

test("one connection too many is closed at once, and those before it go on", async () => {
  const { address } = await serve({}, { maxConnections: 3 });
  const good = goodClient(address);
  await expect.poll(() => unary(dial(address), list, {}).catch(() => 0)).not.toBe(0);
  const holders = await Promise.all([socketTo(address), socketTo(address)]);
  const late = await socketTo(address);
  late.resume();
  await once(late, "close");
  expect(refusals).toContain("connection");
  expect(holders.filter((socket) => socket.destroyed).length).toBeLessThanOrEqual(1);
  await good.stop();
});

test("a connection that closed makes room for another", async () => {
  const { address } = await serve({}, { maxConnections: 1 });
  const first = await socketTo(address);
  first.destroy();
  await expect
    .poll(() =>
      unary(dial(address), list, {}).then(
        () => "ok",
        () => "no",
      ),
    )
    .toBe("ok");
});

test.each([
  ["says nothing", Buffer.alloc(0)],
  ["stops within the preface", preface.subarray(0, 10)],
  ["sends the preface and no settings", preface],
])("a client that %s is closed after a while, and others aren't", async (_what, bytes) => {
  const { address } = await serve({}, { maxHandshakeMs: 1_000 });
  const good = goodClient(address);
  const quiet = await sessionTo(address);
  const socket = await socketTo(address);
  socket.write(bytes);
  socket.resume();
  await once(socket, "close");
  expect(refusals).toEqual(["handshake"]);
  expect(quiet.destroyed).toBe(false);
  await good.stop();
});

test("a client that never finishes its TLS handshake is closed too, one that does isn't", async () => {
  const { cert, key } = selfSigned();
  const credentials = ServerCredentials.createSsl(null, [{ cert_chain: cert, private_key: key }]);
  const { address } = await serve({}, { credentials, maxHandshakeMs: 1_000 });
  const port = Number(address.split(":")[1]);
  const tls = connectTls({
    port,
    host: "127.0.0.1",
    ca: cert,
    ALPNProtocols: ["h2"],
    servername: "localhost",
  });
  tls.on("error", () => {});
  onTestFinished(() => void tls.destroy());
  await once(tls, "secureConnect");
  tls.write(Buffer.concat([preface, frame(4, 0, 0, Buffer.alloc(0))]));
  tls.resume();
  const silent = await socketTo(address);
  silent.resume();
  await once(silent, "close");
  const silentTls = connectTls({
    port,
    host: "127.0.0.1",
    ca: cert,
    ALPNProtocols: ["h2"],
    servername: "localhost",
  });
  silentTls.on("error", () => {});
  silentTls.resume();
  await once(silentTls, "close");
  expect(refusals).toEqual(["handshake", "handshake"]);
  expect(tls.closed).toBe(false);
});

test("headers of more than 16 KiB are refused before anything is done with them", async () => {
  const { address } = await serve();
  const good = goodClient(address);
  const session = await sessionTo(address);
  expect(session.remoteSettings.maxHeaderListSize).toBe(16 * 1024);
  const large = { a: "x".repeat(9_000), b: "x".repeat(9_000) };
  const stream = open(session, "/grpc.health.v1.Health/List", large);
  stream.end(grpcMessage(Buffer.alloc(0)));
  expect(await statusOf(stream)).toBe(-1);
  expect(stream.rstCode).toBe(11);
  const many = Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`h${n}`, "x"]));
  expect(await statusOf(open(session, "/grpc.health.v1.Health/List", many))).toBe(-1);
  await good.stop();
});

test("calls that are open for too long end with DEADLINE_EXCEEDED, whatever they wait for", async () => {
  const { address, calls } = await serve({ maxCallMs: 1_000 });
  const good = goodClient(address);
  const session = await sessionTo(address);
  const unanswered = open(session, "/test.Test/Never");
  unanswered.end(grpcMessage(Buffer.alloc(3)));
  const half = open(session, "/test.Test/Size");
  half.write(grpcMessage(Buffer.alloc(10), 1_000));
  const silent = open(session, "/test.Test/Size");
  const withDeadline = open(session, "/test.Test/Never", { "grpc-timeout": "1H" });
  withDeadline.end(grpcMessage(Buffer.alloc(3)));
  const ends = await Promise.all([unanswered, half, silent, withDeadline].map(statusOf));
  expect(ends).toEqual(Array(4).fill(status.DEADLINE_EXCEEDED));
  expect(refusals).toEqual(Array(4).fill("age"));
  await expect.poll(() => calls.map(({ cancelled }) => cancelled)).toEqual([true, true]);
  await good.stop();
});

test("a reply that nobody reads is reset when its call is too old", async () => {
  const { address } = await serve({ maxCallMs: 1_000 });
  const good = goodClient(address);
  const session = await sessionTo(address);
  const unread = open(session, "/test.Test/Large");
  unread.end(grpcMessage(Buffer.alloc(3)));
  await once(unread, "response");
  await once(unread, "close");
  expect(unread.rstCode).toBe(8);
  expect(refusals).toEqual(["age"]);
  await good.stop();
});

test("streams of replies may be old, but a connection has so many of them and no more", async () => {
  const { address } = await serve({ maxCallMs: 1_000, maxLongCalls: 3 });
  const session = await sessionTo(address);
  const path = "/grpc.health.v1.Health/Watch";
  const watches = Array.from({ length: 3 }, () => {
    const stream = open(session, path);
    stream.end(grpcMessage(Buffer.alloc(0)));
    return stream;
  });
  await Promise.all(watches.map((stream) => once(stream, "data")));
  const more = open(session, path);
  more.end(grpcMessage(Buffer.alloc(0)));
  expect(await statusOf(more)).toBe(status.RESOURCE_EXHAUSTED);
  const old = open(session, "/test.Test/Never");
  old.end(grpcMessage(Buffer.alloc(0)));
  expect(await statusOf(old)).toBe(status.DEADLINE_EXCEEDED);
  expect(watches.map((stream) => stream.closed)).toEqual([false, false, false]);
  watches[0]!.close(8);
  const answered = async () => {
    const stream = open(session, path);
    stream.end(grpcMessage(Buffer.alloc(0)));
    return await Promise.race([once(stream, "data").then(() => "open"), statusOf(stream)]);
  };
  await expect.poll(answered).toBe("open");
});

test("a stream whose deadline passes between its replies ends", async () => {
  const server = createGrpcServer({
    maxReceiveBytes: mib,
    maxSendBytes: -1,
    maxConcurrentStreams: 99,
  });
  onTestFinished(async () => void (await drain(server, 0)));
  server.addService(
    { many: { ...methodAt("/test.Test/Many"), responseStream: true } },
    {
      many: (call: ServerWritableStream<Buffer, Buffer>) => {
        const reply = () => void (call.cancelled || call.write(Buffer.alloc(9), () => reply()));
        reply();
      },
    },
  );
  const { address } = await listen(server, parseListenAddress("127.0.0.1:0"));
  const session = await sessionTo(address);
  const stream = open(session, "/test.Test/Many", { "grpc-timeout": "20m" });
  stream.end(grpcMessage(Buffer.alloc(0)));
  expect(await statusOf(stream)).toBe(status.DEADLINE_EXCEEDED);
});

test("a deadline that can't be parsed is INVALID_ARGUMENT, a method that doesn't exist UNIMPLEMENTED, both with a reason", async () => {
  const { address } = await serve({ completeStatus });
  const session = await sessionTo(address);
  const late = open(session, "/test.Test/Size", { "grpc-timeout": "1Hour" });
  late.end(grpcMessage(Buffer.alloc(0)));
  expect(await answerOf(late)).toEqual({ code: status.INVALID_ARGUMENT, reason: "INVALID_FIELD" });
  const unknown = open(session, "/test.Test/Nothing");
  unknown.end(grpcMessage(Buffer.alloc(0)));
  expect(await answerOf(unknown)).toEqual({ code: status.UNIMPLEMENTED, reason: "UNSUPPORTED" });
});

test("a write whose reply has no room is OUTCOME_UNKNOWN, a read OVERLOADED", () => {
  const path = (name: string) => `/pluginstate.v1.PluginStateService/${name}`;
  const codeOf = (name: string) => overloaded(path(name), "reply").code;
  expect(["Set", "Delete", "Update", "Transact", "DeleteRange"].map(codeOf)).toEqual(
    Array(5).fill(status.UNKNOWN),
  );
  expect(["Get", "List"].map(codeOf)).toEqual(Array(2).fill(status.RESOURCE_EXHAUSTED));
  expect(overloaded(path("Set"), "request").code).toBe(status.RESOURCE_EXHAUSTED);
});

test("when all connections hold as much as they may together, each has an equal share", () => {
  const held = new HeldBytes({ perConnection: 100, perServer: 200 });
  held.add(100);
  expect(held.refuses(60, 40, 4)).toBe(false);
  expect(held.refuses(60, 41, 4)).toBe(true);
  held.add(100);
  expect(held.refuses(40, 10, 4)).toBe(false);
  expect(held.refuses(40, 11, 4)).toBe(true);
  expect(held.refuses(0, 1_000, 4)).toBe(false);
  held.add(-150);
  expect(held.refuses(40, 60, 4)).toBe(false);
});

test("half-sent requests are refused above the connection's bytes, and others aren't", async () => {
  const { address } = await serve();
  const good = goodClient(address);
  const session = await sessionTo(address);
  const streams = Array.from({ length: 20 }, () => open(session, "/test.Test/Size"));
  const ends = streams.map(async (stream) => {
    stream.write(grpcMessage(Buffer.alloc(400_000), 2 * mib));
    return await statusOf(stream);
  });
  const refused = await firstOf(ends, 7);
  expect(new Set(refused)).toEqual(new Set([status.RESOURCE_EXHAUSTED]));
  expect(refusals).toContain("request");
  for (const stream of streams) stream.close(8);
  // What they held is given back.
  const again = async () => {
    const stream = open(session, "/test.Test/Size");
    stream.end(grpcMessage(Buffer.alloc(2 * mib - 5)));
    return await statusOf(stream);
  };
  await expect.poll(again).toBe(status.OK);
  await good.stop();
});

test("what a compressed request becomes counts, one after the other", async () => {
  const { address } = await serve();
  const good = goodClient(address);
  const session = await sessionTo(address);
  const bytes = gzipSync(Buffer.alloc(mib));
  const ends = Array.from({ length: 20 }, () => {
    const stream = open(session, "/test.Test/Size", { "grpc-encoding": "gzip" });
    // Without an end.
    stream.write(grpcMessage(bytes, bytes.length, 1));
    return statusOf(stream);
  });
  const refused = await firstOf(ends, 15);
  expect(new Set(refused)).toEqual(new Set([status.RESOURCE_EXHAUSTED]));
  const alone = open(await sessionTo(address), "/test.Test/Size", { "grpc-encoding": "gzip" });
  alone.end(grpcMessage(bytes, bytes.length, 1));
  expect(await statusOf(alone)).toBe(status.OK);
  await good.stop();
});

test.each([
  ["are read", statusOf],
  ["were cancelled", closed],
])("replies beyond the connection's bytes are refused until others %s", async (_what, end) => {
  const { address } = await serve();
  const good = goodClient(address);
  const session = await sessionTo(address);
  const large = () => {
    const stream = open(session, "/test.Test/Large");
    stream.end(grpcMessage(Buffer.alloc(3)));
    return stream;
  };
  const streams = Array.from({ length: 20 }, large);
  const answers = await Promise.all(streams.map((stream) => once(stream, "response")));
  const codes = answers.map(([headers]) => Number(headers["grpc-status"] ?? -1));
  expect(codes.filter((code) => code === status.RESOURCE_EXHAUSTED).length).toBeGreaterThan(14);
  expect(codes.filter((code) => code === -1).length).toBeGreaterThan(1);
  expect(refusals).toContain("reply");
  // The rest goes, and then there is room again.
  await Promise.all(streams.map((stream) => end(stream)));
  await expect.poll(() => statusOf(large())).toBe(status.OK);
  await good.stop();
});

test("a call that was answered before its request ended is over, and its request forgotten", async () => {
  const { address } = await serve();
  const session = await sessionTo(address);
  const stream = open(session, "/test.Test/Size");
  stream.write(grpcMessage(Buffer.alloc(1), 100 * mib));
  expect(await statusOf(stream)).toBe(status.RESOURCE_EXHAUSTED);
  expect(stream.rstCode).toBe(0);
});

test.each([
  ["99999999H", "2147483S"],
  ["99999999M", "2147483S"],
  ["99999999S", "2147483S"],
  ["596H", "596H"],
  ["597H", "2147483S"],
  ["99999999m", "99999999m"],
  ["1n", "1n"],
  ["1Hour", "?"],
  ["123456789S", "?"],
  ["-1S", "?"],
  ["", "?"],
])("a deadline of %j is taken as %j", (given, taken) => {
  const headers = { "grpc-timeout": given };
  boundTimeout(headers);
  expect(headers).toEqual({ "grpc-timeout": taken });
});

test("a deadline of thousands of years doesn't end the call", async () => {
  const { address } = await serve();
  const session = await sessionTo(address);
  const stream = open(session, "/test.Test/Size", { "grpc-timeout": "99999999H" });
  stream.end(grpcMessage(Buffer.alloc(3)));
  expect(await statusOf(stream)).toBe(status.OK);
});

test("pings and settings without end, their answers unread, cost the client its connection only", async () => {
  const { address } = await serve();
  const good = goodClient(address);
  for (const flood of [frame(6, 0, 0, Buffer.alloc(8)), frame(4, 0, 0, Buffer.alloc(0))]) {
    const socket = await socketTo(address);
    socket.pause();
    socket.write(Buffer.concat([preface, frame(4, 0, 0, Buffer.alloc(0))]));
    const many = Buffer.concat(Array.from({ length: 5_000 }, () => flood));
    const closed = new Promise<boolean>((resolve) => socket.once("close", () => resolve(true)));
    const step = () =>
      new Promise<boolean>((resolve) => socket.write(many, () => setImmediate(resolve, false)));
    while (!(await Promise.race([closed, step()])));
  }
  await good.stop();
});

test("a flood of calls that are reset at once leaves other connections' calls alone", async () => {
  const { address } = await serve();
  const good = goodClient(address);
  for (let round = 0; round < 3; round++) {
    const session = await sessionTo(address);
    for (let n = 0; n < 2_000 && !session.destroyed; n++) {
      const stream = open(session, "/test.Test/Never");
      stream.end(grpcMessage(Buffer.alloc(3)));
      stream.close(8);
      if (n % 50 === 0) await new Promise(setImmediate);
    }
    session.destroy();
  }
  await good.stop();
});

/** The status of a call, and the reason that its details name. */
async function answerOf(stream: ClientHttp2Stream) {
  let details = "";
  stream.on("response", (headers) => {
    details = String(headers["grpc-status-details-bin"] ?? "");
  });
  const code = await statusOf(stream);
  const { details: parts } = fromBinary(StatusSchema, Buffer.from(details, "base64"));
  const info = parts.map((part) => anyUnpack(part, ErrorInfoSchema)).find((found) => found);
  return { code, reason: info?.reason };
}

async function closed(stream: ClientHttp2Stream): Promise<void> {
  if (!stream.destroyed) {
    stream.close(8);
    await once(stream, "close");
  }
}

/** The first so many to settle. */
function firstOf<T>(promises: readonly Promise<T>[], count: number): Promise<T[]> {
  return new Promise((resolve, reject) => {
    const settled: T[] = [];
    for (const promise of promises) {
      promise.then((value) => {
        settled.push(value);
        if (settled.length === count) resolve(settled);
      }, reject);
    }
  });
}

function selfSigned(): { cert: Buffer; key: Buffer } {
  const directory = mkdtempSync(join(tmpdir(), "bounds-"));
  try {
    const [key, cert] = [join(directory, "key"), join(directory, "cert")];
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
        ...["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        ...["-keyout", key, "-out", cert],
      ],
      { stdio: "ignore" },
    );
    return { cert: readFileSync(cert), key: readFileSync(key) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
