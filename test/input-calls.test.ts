import { once } from "node:events";
import http2 from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { SetRequestSchema } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

const mebibyte = 1024 * 1024;
const scope = { kind: ScopeKind.INSTANCE };

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

test("a message larger than the transport takes is RESOURCE_EXHAUSTED with TOO_LARGE, and costs no other call", async () => {
  const large = { scope, key: "large", valueJson: `"${"a".repeat(10 * mebibyte)}"` };
  const [error, beside] = await Promise.all([
    failure(server.client.call("set", large)),
    server.client.call("set", { scope, key: "beside", valueJson: "1" }),
  ]);
  expect(error).toMatchObject({
    codeName: "RESOURCE_EXHAUSTED",
    domain: "pluginstate",
    reason: "TOO_LARGE",
  });
  expect(error.message).not.toContain("aaa");
  expect(beside.created).toBe(true);
  expect((await server.client.call("get", { scope, key: "large" })).entry).toBeUndefined();
});

test("a call whose deadline passes while it waits is DEADLINE_EXCEEDED with its reason", async () => {
  const writes = await holdWrites(database);
  const set = create(SetRequestSchema, { scope, key: "deadline", valueJson: "1" });
  const bytes = Buffer.from(toBinary(SetRequestSchema, set));
  const reply = await rawCall("Set", { "grpc-timeout": "1n" }, [frame(bytes)]);
  await writes.release();
  expect(reply).toEqual({
    code: status.DEADLINE_EXCEEDED,
    domain: "pluginstate",
    reason: "DEADLINE_EXCEEDED",
  });
});

test.each<[string, http2.OutgoingHttpHeaders, (request: Buffer) => Buffer]>([
  ["a timeout that is none", { "grpc-timeout": "soon" }, (request) => frame(request)],
  ["compression that isn't", { "grpc-encoding": "gzip" }, (request) => frame(request, 1)],
  ["a compressed message of no known encoding", {}, (request) => frame(request.fill(1), 1)],
])("%s is INVALID_ARGUMENT, never INTERNAL", async (_, headers, encode) => {
  const reply = await rawCall("Get", headers, [encode(Buffer.from(getRequest))]);
  expect(reply).toEqual({
    code: status.INVALID_ARGUMENT,
    domain: "pluginstate",
    reason: "INVALID_FIELD",
  });
});

test("a frame that claims 4 GiB is RESOURCE_EXHAUSTED with TOO_LARGE at once", async () => {
  const reply = await rawCall("Get", {}, [Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1])]);
  expect(reply).toMatchObject({ code: status.RESOURCE_EXHAUSTED, reason: "TOO_LARGE" });
});

test("an unknown method, no message and two messages are UNIMPLEMENTED, never INTERNAL", async () => {
  const replies = await Promise.all([
    rawCall("Nonesuch", {}, [frame(getRequest)]),
    rawCall("Get", {}, []),
    rawCall("Get", {}, [frame(getRequest), frame(getRequest)]),
    rawCall("Get", {}, [frame(getRequest).subarray(0, 7)]),
  ]);
  expect(replies.map(({ code }) => code)).toEqual(Array(4).fill(status.UNIMPLEMENTED));
});

test("a write that was given up while it waited for its turn never happens", async () => {
  const writes = await holdWrites(database);
  const before = await server.client.call("get", { scope, key: "first" });
  const first = { scope, key: "first", valueJson: "1" };
  const sent = await writes.fill(() => server.client.call("set", first));
  const late = { scope, key: "late", valueJson: "1" };
  const cancelled = { scope, key: "cancelled", valueJson: "1" };
  const abort = new AbortController();
  const cancelledCall = server.client.call("set", cancelled, { signal: abort.signal });
  const lateError = await failure(server.client.call("set", late, { deadlineMs: 100 }));
  abort.abort();
  const cancelledError = await failure(cancelledCall);
  // Comes after the cancellation, on the same connection.
  await server.client.call("getServerInfo", {});
  await writes.release();

  expect(lateError.codeName).toBe("DEADLINE_EXCEEDED");
  expect(cancelledError.codeName).toBe("CANCELLED");
  await Promise.all(sent);
  const after = await server.client.call("set", { scope, key: "after", valueJson: "1" });
  expect(after.revision).toBe(before.revision + BigInt(sent.length) + 1n);
  expect((await server.client.call("get", late)).entry).toBeUndefined();
  expect((await server.client.call("get", cancelled)).entry).toBeUndefined();
});

test("a write that was given up after it was sent happens, and the sidecar serves on", async () => {
  const writes = await holdWrites(database);
  const abort = new AbortController();
  const name = { scope, key: "sent" };
  const call = server.client.call("set", { ...name, valueJson: "1" }, { signal: abort.signal });
  await writes.areWaiting(1);
  abort.abort();
  const error = await failure(call);
  await writes.release();

  expect(error.codeName).toBe("CANCELLED");
  await server.client.call("set", { scope, key: "next", valueJson: "1" });
  expect((await server.client.call("get", name)).entry?.valueJson).toBe("1");
});

/** A GetRequest: scope instance, key `a`. */
const getRequest = Buffer.from([0x0a, 2, 0x08, 1, 0x1a, 1, 0x61]);

function frame(message: Buffer, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Sends HTTP/2 as no gRPC client would, and reads the status. */
async function rawCall(method: string, headers: http2.OutgoingHttpHeaders, chunks: Buffer[]) {
  const session = http2.connect(`http://${server.address}`);
  onTestFinished(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": `/pluginstate.v1.PluginStateService/${method}`,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  const seen: http2.IncomingHttpHeaders = {};
  stream.on("response", (head) => Object.assign(seen, head));
  stream.on("trailers", (trailers) => Object.assign(seen, trailers));
  stream.resume().end(Buffer.concat(chunks));
  await once(stream, "close");
  const details = Buffer.from(String(seen["grpc-status-details-bin"] ?? ""), "base64");
  const [any] = fromBinary(StatusSchema, details).details;
  const info = any && anyUnpack(any, ErrorInfoSchema);
  return { code: Number(seen["grpc-status"]), domain: info?.domain, reason: info?.reason };
}
