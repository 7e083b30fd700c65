import { once } from "node:events";
import {
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
  type Settings,
} from "node:http2";
import { type handleUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { ReplyEnd } from "../../src/rpc/reply-end.ts";
import { recordFrames, split } from "../fuzz/frame-inputs.ts";
import { methodAt, start } from "./peers.ts";
import { grpcMessage, open, preface, sessionTo, socketTo, statusOf } from "./raw-client.ts";

const path = "/test.End/Call";
const hello = grpcMessage(Buffer.from("hello"));

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
  ({ address, served } = await start((server) =>
    server.addService({ call: methodAt(path) }, { call: handle }),
  ));
  // The way is learnt from the first two, if it wasn't yet.
  for (let n = 1; n <= 2; n++) {
    await call();
  }
});

test("message and trailers go to nghttp2 at once, not by node", async () => {
  const stream = Object.getPrototypeOf(served[0]) as ServerHttp2Stream;
  const spies = [vi.spyOn(stream, "write"), vi.spyOn(stream, "sendTrailers")];
  onTestFinished(() => spies.forEach((spy) => void spy.mockRestore()));

  expect(await call()).toMatchObject({ body: hello, status: status.OK });

  for (const spy of spies) {
    expect(spy).not.toHaveBeenCalled();
  }
});

test("a reply is one packet", async () => {
  const frames = await recordFrames(path, Buffer.from("hello"));
  const request = frames.slice(0, frames.findIndex(isEnd) + 1);
  const socket = await socketTo(address);
  const packets: Buffer[] = [];
  socket.on("data", (packet: Buffer) => packets.push(packet));

  socket.write(Buffer.concat([preface, ...request]));
  const ends = () =>
    split(Buffer.concat(packets)).some((frame) => isHeaders(frame) && isLast(frame));
  await expect.poll(ends).toBe(true);

  const reply = packets.map(split).filter((frames) => frames.some(isData));
  expect(reply).toHaveLength(1);
  expect(reply[0]?.map((frame) => frame[3]).filter((type) => type! < 2)).toEqual([1, 0, 1]);
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
  expect(replies).toEqual(sent.map((body) => ({ body, status: status.OK })));
  await expect.poll(() => served.every((stream) => stream.destroyed)).toBe(true);
});

test.each([1, 7, 500])("a client may read a reply by %d bytes", async (window) => {
  const session = await windowedSession(window);
  const sent = grpcMessage(Buffer.alloc(1000, "abc"));
  expect(await answerTo(open(session, path).end(sent))).toEqual({ body: sent, status: status.OK });
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

  test("keeps its status when its deadline passes", async () => {
    const { session, stream, end } = await unread({ "grpc-timeout": "100m" });
    const answered = answerTo(stream.pause());
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(end.destroyed).toBe(false);
    await settle(session, { initialWindowSize: 5000 });
    stream.resume();
    expect(await answered).toEqual({ body: hello, status: status.OK });
    await expect.poll(() => end.destroyed).toBe(true);
  });
});

test("an answer to a call that is gone goes nowhere, and the next one arrives", async () => {
  const session = await sessionTo(address);
  let release: (() => void) | undefined;
  answer = (callback, request) => {
    release = () => callback(null, request);
  };
  const stream = open(session, path).end(hello);
  await expect.poll(() => release !== undefined).toBe(true);
  stream.close(constants.NGHTTP2_CANCEL);
  await once(stream, "close");
  await expect.poll(() => served.at(-1)?.destroyed).toBe(true);
  release?.();
  answer = (callback, request) => callback(null, request);
  expect(await answerTo(open(session, path).end(hello))).toMatchObject({ status: status.OK });
});

test.each(["respond", "writeBuffer", "trailers"])(
  "what nghttp2 refuses to %s ends that call, and no other",
  async (method) => {
    const session = await sessionTo(address);
    let release: (() => void) | undefined;
    answer = (callback, request) => {
      release = () => callback(null, request);
    };
    const ended = statusOf(open(session, path).end(hello));
    await expect.poll(() => release !== undefined).toBe(true);
    Reflect.set(handleOf(served.at(-1)!), method, () => -1);
    release?.();
    expect(await ended).toBe(-1);
    answer = (callback, request) => callback(null, request);
    expect(await answerTo(open(session, path).end(hello))).toMatchObject({ status: status.OK });
  },
);

describe("where node works in another way", () => {
  const trailers = { "grpc-status": 0 };
  const message = Buffer.from("message");

  test.each([
    ["it has no handle", {}],
    ["its handle has no such methods", { [Symbol("kHandle")]: { trailers() {} } }],
    ["it writes otherwise", { [Symbol("kHandle")]: { writeBuffer() {}, trailers() {} } }],
  ])("%s: it does all itself", (_what, inside) => {
    const end = new ReplyEnd(trailers);
    for (let n = 1; n <= 3; n++) {
      const stream = fakeStream(inside);
      end.send(stream, message);
      expect(stream.write).toHaveBeenCalledExactlyOnceWith(message);
      expect(stream.end).toHaveBeenCalledOnce();
      stream.want();
      expect(stream.sendTrailers).toHaveBeenCalledExactlyOnceWith(trailers);
    }
  });

  test.each(["writeBuffer", "trailers"])("what nghttp2 says to %s ends the stream", (refuses) => {
    const key = Symbol("kHandle");
    const end = new ReplyEnd(trailers);
    const results = { writeBuffer: 0, trailers: 0 };
    const streams = [1, 2].map(() => {
      class Write {}
      const handle = {
        writeBuffer: (_write: object, _bytes: Buffer) => results.writeBuffer,
        trailers: (_headers: object) => results.trailers,
      };
      const stream = fakeStream({ [key]: handle });
      stream.write.mockImplementation(() => handle.writeBuffer(new Write(), message));
      stream.sendTrailers.mockImplementation((headers) => handle.trailers(headers));
      end.send(stream, message);
      stream.want();
      Object.assign(results, { [refuses]: -1 });
      return stream;
    });
    expect(streams[0]?.destroy).not.toHaveBeenCalled();
    expect(streams[1]?.destroy).toHaveBeenCalledExactlyOnceWith(expect.any(Error));
  });

  function fakeStream(inside: object) {
    const wanting: (() => void)[] = [];
    const stream = {
      ...inside,
      on: (_event: string, listener: () => void) => wanting.push(listener),
      want: () => wanting.forEach((listener) => void listener.call(stream)),
      write: vi.fn(),
      end: vi.fn(),
      sendTrailers: vi.fn(),
      destroy: vi.fn(),
    };
    return stream as typeof stream & ServerHttp2Stream;
  }
});

async function call(message = hello) {
  const session = await sessionTo(address);
  return await answerTo(open(session, path).end(message));
}

async function answerTo(stream: ClientHttp2Stream) {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  let end: IncomingHttpHeaders = {};
  stream.once("trailers", (trailers: IncomingHttpHeaders) => {
    end = trailers;
  });
  await once(stream, "close");
  return { body: Buffer.concat(chunks), status: Number(end["grpc-status"] ?? -1) };
}

function handleOf(stream: ServerHttp2Stream): object {
  const keys = Object.getOwnPropertySymbols(stream);
  return Reflect.get(stream, keys.find(({ description }) => description === "kHandle")!);
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

const isData = (frame: Buffer) => frame[3] === 0;
const isHeaders = (frame: Buffer) => frame[3] === 1;
const isLast = (frame: Buffer) => ((frame[4] ?? 0) & 1) === 1;
const isEnd = (frame: Buffer) => isData(frame) && isLast(frame);
