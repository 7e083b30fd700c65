import { once } from "node:events";
import type { ServerHttp2Stream } from "node:http2";
import { Writable } from "node:stream";
import {
  type Client,
  type ClientUnaryCall,
  type handleUnaryCall,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { asTheyAre, dial, methodAt, start } from "./peers.ts";
import { grpcMessage, open, sessionTo } from "./raw-client.ts";

type Handle = handleUnaryCall<Buffer, Buffer>;

const path = "/test.Unary/Call";
const hello = Buffer.from("hello");

let address: string;
let client: Client;
/** The server's end of each call. */
let served: ServerHttp2Stream[];
/** What the service does with a call. */
let handle: Handle;

beforeEach(async () => {
  handle = (call, callback) => callback(null, call.request);
  const handler: Handle = (call, callback) => handle(call, callback);
  ({ address, served } = await start((server) =>
    server.addService({ call: methodAt(path) }, { call: handler }),
  ));
  client = dial(address);
});

describe("a unary handler", () => {
  test("is given what grpc-js gives, but no stream for each call", async () => {
    const seen = vi.fn<(call: Parameters<Handle>[0], peer: string) => void>();
    handle = (call, callback) => {
      seen(call, call.getPeer());
      callback(null, call.request);
    };
    const metadata = new Metadata();
    metadata.set("x-asked", "yes");
    const before = Date.now();
    const { reply } = await answerTo(hello, metadata, { deadline: before + 60_000 });
    expect(reply).toEqual(hello);
    const [call, peer] = seen.mock.lastCall!;
    expect(call).not.toBeInstanceOf(Writable);
    expect(call.request).toEqual(hello);
    expect(call.metadata.get("x-asked")).toEqual(["yes"]);
    expect(call.getPath()).toBe(path);
    expect(call.getHost()).toBe(address);
    expect(peer).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(Number(call.getDeadline())).toBeGreaterThan(before + 50_000);
    expect(call.getAuthContext()).toBeDefined();
    expect(call.getMetricsRecorder()).toBeDefined();
  });

  test("may send metadata before its reply, and trailers after it", async () => {
    const [sent, trailer] = [new Metadata(), new Metadata()];
    sent.set("x-first", "1");
    trailer.set("x-last", "2");
    handle = (call, callback) => {
      call.sendMetadata(sent);
      callback(null, call.request, trailer);
    };
    const { reply, metadata, end } = await answerTo(hello);
    expect(reply).toEqual(hello);
    expect(metadata?.get("x-first")).toEqual(["1"]);
    expect(end.metadata.get("x-last")).toEqual(["2"]);
  });

  test.each<[string, Partial<ServiceError>, object]>([
    [
      "a status",
      { code: status.ABORTED, details: "lost" },
      { code: status.ABORTED, details: "lost" },
    ],
    ["an error", new Error("broken"), { code: status.UNKNOWN, details: "broken" }],
    ["nothing in particular", {}, { code: status.UNKNOWN, details: "Unknown error" }],
  ])("may answer with %s", async (_what, failure, expected) => {
    handle = (_call, callback) => callback(failure);
    expect((await answerTo(hello)).error).toMatchObject(expected);
  });

  test("may send metadata with an error", async () => {
    const metadata = new Metadata();
    metadata.set("x-why", "so");
    handle = (_call, callback) => callback({ code: status.ABORTED, details: "lost", metadata });
    expect((await answerTo(hello)).error?.metadata.get("x-why")).toEqual(["so"]);
  });

  test("that throws has answered without a word of it, and others go on", async () => {
    handle = () => {
      throw new Error("broken");
    };
    const { error } = await answerTo(hello);
    expect(error).toMatchObject({ code: status.UNKNOWN, details: "Unknown error" });
    handle = (call, callback) => callback(null, call.request);
    expect((await answerTo(hello)).reply).toEqual(hello);
  });

  test("is told that its caller has gone", async () => {
    let arrived: ((call: Parameters<Handle>[0]) => void) | undefined;
    const arrival = new Promise<Parameters<Handle>[0]>((resolve) => {
      arrived = resolve;
    });
    handle = (call) => arrived?.(call);
    const started = startCall(hello);
    const call = await arrival;
    expect(call.cancelled).toBe(false);
    const told = once(call, "cancelled");
    started.cancel();
    await told;
    expect(call.cancelled).toBe(true);
  });
});

test.each([
  ["no request", 0],
  ["two requests", 2],
])("a call with %s is UNIMPLEMENTED, and isn't handled", async (_what, count) => {
  const handled = vi.fn();
  handle = handled;
  const session = await sessionTo(address);
  const call = open(session, path);
  const answered = Promise.race([once(call, "response"), once(call, "trailers")]);
  for (let n = 0; n < count; n++) {
    call.write(grpcMessage(hello));
  }
  call.end();
  const [headers] = await answered;
  expect(headers["grpc-status"]).toBe(String(status.UNIMPLEMENTED));
  expect(handled).not.toHaveBeenCalled();
});

const keepsStreams = Number.parseInt(process.versions.node, 10) >= 24;

test.runIf(keepsStreams)(
  "a call that has ended leaves its stream with an ear for errors alone",
  async () => {
    await answerTo(hello);
    await expect.poll(() => served[0]?.closed).toBe(true);
    await expect.poll(() => served[0]?.eventNames()).toEqual(["error"]);
  },
);

interface Answer {
  readonly error: ServiceError | undefined;
  readonly reply: Buffer | undefined;
  readonly metadata: Metadata | undefined;
  readonly end: { readonly metadata: Metadata };
}

async function answerTo(
  request: Buffer,
  metadata = new Metadata(),
  options: object = {},
): Promise<Answer> {
  let call: ClientUnaryCall | undefined;
  const answered = new Promise<Pick<Answer, "error" | "reply">>((resolve) => {
    call = client.makeUnaryRequest(
      path,
      asTheyAre,
      asTheyAre,
      request,
      metadata,
      options,
      (error, reply) => resolve({ error: error ?? undefined, reply }),
    );
  });
  let sent: Metadata | undefined;
  call?.once("metadata", (received: Metadata) => {
    sent = received;
  });
  const [[end], answer] = await Promise.all([once(call!, "status"), answered]);
  return { ...answer, metadata: sent, end };
}

function startCall(request: Buffer): ClientUnaryCall {
  return client.makeUnaryRequest(path, asTheyAre, asTheyAre, request, () => {});
}
