import { once } from "node:events";
import {
  type ClientHttp2Stream,
  constants,
  type ServerHttp2Stream,
  sensitiveHeaders,
} from "node:http2";
import { gzipSync } from "node:zlib";
import { Metadata, type ServerUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { ReplyHeaders } from "../../src/rpc/reply-headers.ts";
import { methodAt, start } from "./peers.ts";
import { grpcMessage, open, sessionTo } from "./raw-client.ts";

type Unary = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;

let address: string;
/** The server's end of each call. */
let served: ServerHttp2Stream[];
/** Lets a held call go on. */
let release: (() => void) | undefined;

beforeEach(async () => {
  release = undefined;
  const echo: Unary = (call, callback) => callback(null, call.request);
  const greet: Unary = (call, callback) => {
    const metadata = new Metadata();
    metadata.set("x-greeting", "hello");
    call.sendMetadata(metadata);
    callback(null, call.request);
  };
  const hold: Unary = (call, callback) => {
    release = () => callback(null, call.request);
  };
  const refuseAll = () => {
    throw new Error("no message of ours");
  };
  const methods = {
    echo: methodAt("/test.Echo/Echo"),
    greet: methodAt("/test.Echo/Greet"),
    hold: methodAt("/test.Echo/Hold"),
    broken: { ...methodAt("/test.Echo/Broken"), requestDeserialize: refuseAll },
  };
  ({ address, served } = await start((server) =>
    server.addService(methods, { echo, greet, hold, broken: echo }),
  ));
});

const request = grpcMessage(Buffer.from("hello"));
const usual = {
  ":status": 200,
  "content-type": "application/grpc+proto",
  "grpc-accept-encoding": "identity,deflate,gzip",
  "grpc-encoding": "identity",
};

describe("replies", () => {
  test("go out the short way after the first, and are no different from it", async () => {
    const session = await sessionTo(address);
    const call = () => answerTo(open(session, "/test.Echo/Echo").end(request));
    const replies = [await call()];
    const respond = vi.spyOn(Object.getPrototypeOf(served[0]), "respond");
    onTestFinished(() => respond.mockRestore());
    replies.push(await call(), await call());
    expect(respond).not.toHaveBeenCalled();
    for (const { headers, body, trailers } of replies) {
      expect(headers).toEqual({ ...usual, [sensitiveHeaders]: [] });
      expect(body).toEqual(request);
      expect(trailers).toMatchObject({ "grpc-status": "0", "grpc-message": "OK" });
    }
  });

  test("carry the metadata that a handler sends", async () => {
    const session = await sessionTo(address);
    await answerTo(open(session, "/test.Echo/Echo").end(request));
    const { headers, body } = await answerTo(open(session, "/test.Echo/Greet").end(request));
    expect(headers).toMatchObject({ ...usual, "x-greeting": "hello" });
    expect(body).toEqual(request);
  });

  test("to a call that was reset meanwhile are dropped, and others arrive", async () => {
    const session = await sessionTo(address);
    await answerTo(open(session, "/test.Echo/Echo").end(request));
    const held = open(session, "/test.Echo/Hold").end(request);
    held.on("error", () => {});
    await expect.poll(() => release !== undefined).toBe(true);
    held.close(constants.NGHTTP2_CANCEL);
    await once(held, "close");
    await answerTo(open(session, "/test.Echo/Echo").end(request));
    release?.();
    const { body } = await answerTo(open(session, "/test.Echo/Echo").end(request));
    expect(body).toEqual(request);
  });
});

describe("requests", () => {
  test("that can't be read are answered, and others after them", async () => {
    const session = await sessionTo(address);
    const { headers } = await answerTo(open(session, "/test.Echo/Broken").end(request));
    expect(headers["grpc-status"]).toBe(String(status.INTERNAL));
    const { body } = await answerTo(open(session, "/test.Echo/Echo").end(request));
    expect(body).toEqual(request);
  });

  test("that are compressed are read as grpc-js reads them", async () => {
    const session = await sessionTo(address);
    const compressed = grpcMessage(gzipSync("hello"), undefined, 1);
    const call = open(session, "/test.Echo/Echo", { "grpc-encoding": "gzip" }).end(compressed);
    expect((await answerTo(call)).body).toEqual(request);
  });
});

describe("where node works in another way", () => {
  const respond = vi.fn();
  const headers = { ":status": 200 };
  const asUsual = [headers, { waitForTrailers: true, sendDate: false }];

  beforeEach(() => respond.mockReset());

  test.each([
    ["it has no handle", {}],
    ["its handle has no such method", { [Symbol("kHandle")]: {}, [Symbol("state")]: { flags: 0 } }],
    ["it has no flags", { [Symbol("kHandle")]: { respond() {} }, [Symbol("state")]: {} }],
    [
      "it tells its handle nothing",
      { [Symbol("kHandle")]: { respond() {} }, [Symbol("state")]: { flags: 0 } },
    ],
  ])("%s: it does all itself", (_what, inside) => {
    const short = new ReplyHeaders(headers);
    for (let n = 1; n <= 3; n++) {
      short.send({ ...inside, respond } as unknown as ServerHttp2Stream);
      expect(respond).toHaveBeenCalledTimes(n);
      expect(respond).toHaveBeenLastCalledWith(...asUsual);
    }
  });

  test("it sends a date all the same: each reply gets its own", () => {
    const [handleKey, stateKey, sentKey] = ["kHandle", "state", "sent-headers"].map(Symbol);
    const streams = [1, 2].map(() => {
      const stream = {
        [handleKey!]: { respond: () => 0 },
        [stateKey!]: { flags: 0 },
        respond: vi.fn(() => {
          Object.assign(stream, { [sentKey!]: { ...headers, date: "today" } });
          (stream as unknown as Record<symbol, { respond(): void }>)[handleKey!]?.respond();
        }),
      };
      return stream;
    });
    const short = new ReplyHeaders(headers);
    for (const stream of streams) {
      short.send(stream as unknown as ServerHttp2Stream);
      expect(stream.respond).toHaveBeenCalledOnce();
    }
  });
});

async function answerTo(stream: ClientHttp2Stream) {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  let trailers: object | undefined;
  stream.once("trailers", (sent: object) => {
    trailers = sent;
  });
  const [headers] = await once(stream, "response");
  await once(stream, "close");
  return {
    headers: headers as Record<string, unknown>,
    body: Buffer.concat(chunks),
    trailers,
  };
}
