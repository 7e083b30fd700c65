import { once } from "node:events";
import {
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
  type Settings,
} from "node:http2";
import { gzipSync } from "node:zlib";
import { type handleUnaryCall, Metadata, type sendUnaryData, status } from "@grpc/grpc-js";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { drain } from "../../src/rpc/listener.ts";
import { methodAt, start } from "./peers.ts";
import { grpcMessage, open, sessionTo } from "./raw-client.ts";

const path = "/test.End/Call";
const hello = grpcMessage(Buffer.from("hello"));

let server: Awaited<ReturnType<typeof start>>["server"];
let address: string;
/** The server's end of each call. */
let served: ServerHttp2Stream[];
/** What the service answers. */
let answer: (callback: sendUnaryData<Buffer>, request: Buffer) => void;

beforeEach(async () => {
  answer = (callback, request) => callback(null, request);
  const handle: handleUnaryCall<Buffer, Buffer> = (call, callback) => {
    answer(callback, call.request);
  };
  const greet: handleUnaryCall<Buffer, Buffer> = (call, callback) => {
    const metadata = new Metadata();
    metadata.set("x-greeting", "hello");
    call.sendMetadata(metadata);
    callback(null, call.request);
  };
  const refuseAll = () => {
    throw new Error("no message of ours");
  };
  const methods = {
    call: methodAt(path),
    greet: methodAt("/test.End/Greet"),
    broken: { ...methodAt("/test.End/Broken"), requestDeserialize: refuseAll },
  };
  ({ server, address, served } = await start((started) =>
    started.addService(methods, { call: handle, greet, broken: handle }),
  ));
});

test("a reply has gRPC's headers before it, and its status after it", async () => {
  const { headers, body, trailers } = await call();
  expect(headers).toMatchObject({ ":status": 200, "content-type": "application/grpc+proto" });
  expect(body).toEqual(hello);
  expect(trailers).toMatchObject({ "grpc-status": "0", "grpc-message": "OK" });
});

test("a reply carries the metadata that a handler sends", async () => {
  const { headers, body } = await call(hello, "/test.End/Greet");
  expect(headers).toMatchObject({ ":status": 200, "x-greeting": "hello" });
  expect(body).toEqual(hello);
});

test.each([0, 16 * 1024 - 1, 16 * 1024, 1_000_000])(
  "a reply of %d bytes is whole",
  async (length) => {
    const sent = Buffer.alloc(length, "abc");
    const { body, status } = await call(grpcMessage(sent));
    expect([body.equals(grpcMessage(sent)), status]).toEqual([true, 0]);
  },
);

test("replies to many calls at once each have their own message", async () => {
  const session = await sessionTo(address);
  const sent = Array.from({ length: 200 }, (_, n) => grpcMessage(Buffer.from(`number ${n}`)));
  const replies = await Promise.all(
    sent.map((message) => answerTo(open(session, path).end(message))),
  );
  expect(replies).toMatchObject(sent.map((body) => ({ body, status: status.OK })));
  await expect.poll(() => served.every((stream) => stream.destroyed)).toBe(true);
});

test("calls that are open while many others come and go end as any other, and so does the connection", async () => {
  const session = await sessionTo(address);
  const halves = Array.from({ length: 20 }, () => open(session, path));
  const ends = halves.map(answerTo);
  for (let n = 0; n < 600; n++) {
    await answerTo(open(session, path).end(hello));
  }
  for (const half of halves) half.end(hello);
  for (const { status: code } of await Promise.all(ends)) expect(code).toBe(status.OK);
  session.close();
  expect(await drain(server, 5_000)).toBe("drained");
});

test.each([1, 7, 500])("a client may read a reply by %d bytes", async (window) => {
  const session = await windowedSession(window);
  const sent = grpcMessage(Buffer.alloc(1000, "abc"));
  const answered = await answerTo(open(session, path).end(sent));
  expect(answered).toMatchObject({ body: sent, status: status.OK });
  await expect.poll(() => served.at(-1)?.destroyed).toBe(true);
});

describe("a reply that nobody reads", () => {
  /** A call that has been answered, as far as there was room. */
  async function unread(headers = {}) {
    const session = await windowedSession(3);
    const stream = open(session, path, headers).end(hello);
    await once(stream, "response");
    return { session, stream, end: served.at(-1)! };
  }

  test("is forgotten when its call is cancelled", async () => {
    const { stream, end, session } = await unread();
    stream.close(constants.NGHTTP2_CANCEL);
    await expect.poll(() => end.destroyed).toBe(true);
    await settle(session, { initialWindowSize: 5000 });
    expect(await answerTo(open(session, path).end(hello))).toMatchObject({ status: status.OK });
  });

  test("is forgotten when the connection breaks", async () => {
    const { session, end } = await unread();
    session.destroy();
    await expect.poll(() => end.destroyed).toBe(true);
    expect(await call()).toMatchObject({ status: status.OK });
  });

  test("is read to its end, and called late, when its deadline passes meanwhile", async () => {
    const { session, stream, end } = await unread({ "grpc-timeout": "100m" });
    const answered = answerTo(stream.pause());
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(end.destroyed).toBe(false);
    await settle(session, { initialWindowSize: 5000 });
    stream.resume();
    expect(await answered).toMatchObject({ body: hello, status: status.DEADLINE_EXCEEDED });
    await expect.poll(() => end.destroyed).toBe(true);
  });
});

test("an answer to a call that is gone goes nowhere, and the next one arrives", async () => {
  const session = await sessionTo(address);
  const release = hold();
  const stream = open(session, path).end(hello);
  await expect.poll(release.isHeld).toBe(true);
  stream.close(constants.NGHTTP2_CANCEL);
  await once(stream, "close");
  await expect.poll(() => served.at(-1)?.destroyed).toBe(true);
  release.now();
  expect(await answerTo(open(session, path).end(hello))).toMatchObject({ status: status.OK });
});

describe("requests", () => {
  test("that can't be read are answered, and others after them", async () => {
    const { headers } = await call(hello, "/test.End/Broken");
    expect(headers["grpc-status"]).toBe(String(status.INTERNAL));
    expect(await call()).toMatchObject({ body: hello });
  });

  test("that are compressed are read", async () => {
    const session = await sessionTo(address);
    const compressed = grpcMessage(gzipSync("hello"), undefined, 1);
    const stream = open(session, path, { "grpc-encoding": "gzip" }).end(compressed);
    expect(await answerTo(stream)).toMatchObject({ body: hello });
  });
});

/** Holds the next call's answer until it's told. */
function hold() {
  let now: (() => void) | undefined;
  answer = (callback, request) => {
    answer = (next, message) => next(null, message);
    now = () => callback(null, request);
  };
  return { isHeld: () => now !== undefined, now: () => now?.() };
}

async function call(message = hello, to = path) {
  const session = await sessionTo(address);
  return await answerTo(open(session, to).end(message));
}

async function answerTo(stream: ClientHttp2Stream) {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  stream.once("response", (received: IncomingHttpHeaders) => {
    headers = received;
  });
  stream.once("trailers", (received: IncomingHttpHeaders) => {
    trailers = received;
  });
  await once(stream, "close");
  const body = Buffer.concat(chunks);
  return { headers, body, trailers, status: Number(trailers["grpc-status"] ?? -1) };
}

/** A connection whose streams each have room for so many bytes. */
async function windowedSession(initialWindowSize: number) {
  const session = connect(`http://${address}`, { settings: { initialWindowSize } });
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  await once(session, "remoteSettings");
  return session;
}

async function settle(session: ReturnType<typeof connect>, settings: Settings): Promise<void> {
  await new Promise<void>((resolve) => session.settings(settings, () => resolve()));
}
