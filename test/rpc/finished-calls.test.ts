import { once } from "node:events";
import type { ServerHttp2Stream } from "node:http2";
import { type ServerInterceptor, status } from "@grpc/grpc-js";
import { afterEach, expect, onTestFinished, test } from "vitest";
import { pluginStateServiceCodec } from "../../src/gen/pluginstate/v1/plugin_state_service_codec.ts";
import { PluginStateService } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { addUnaryService, type FinishedCall, type UnaryHandlers } from "../../src/rpc/handler.ts";
import { parseListenAddress } from "../../src/rpc/listen-address.ts";
import { drain, listen } from "../../src/rpc/listener.ts";
import { createGrpcServer } from "../../src/rpc/server-options.ts";
import { overloaded } from "../../src/service/overloaded.ts";
import { BadClient } from "../cuts/clients.ts";
import { grpcMessage, open, sessionTo, statusOf } from "./raw-client.ts";

type Handlers = UnaryHandlers<typeof PluginStateService>;

const maxCallMs = 500;
const mib = 1024 * 1024;
const path = (name: string) => `/${PluginStateService.typeName}/${name}`;
const finished: FinishedCall[] = [];

afterEach(() => void finished.splice(0));

/** A server whose bounds end calls, with these methods. */
async function serve(
  handlers: Partial<Handlers>,
  interceptors: readonly ServerInterceptor[] = [],
): Promise<string> {
  const server = createGrpcServer({
    maxReceiveBytes: mib,
    maxSendBytes: -1,
    maxConcurrentStreams: 99,
    maxHeldBytes: 2 * mib,
    maxCallMs,
    overloaded,
    interceptors,
  });
  onTestFinished(async () => void (await drain(server, 0)));
  addUnaryService(server, PluginStateService, pluginStateServiceCodec, handlers as Handlers, {
    toStatus: (error) => ({ code: status.INTERNAL, details: String(error) }),
    onFinished: (call) => void finished.push(call),
    overloaded,
    maxCallMs,
  });
  const { address } = await listen(server, parseListenAddress("127.0.0.1:0"));
  return address;
}

const codes = () => finished.map(({ code }) => code);

test("replies that had no room are told of with the code that the client got", async () => {
  const valueJson = `"${"x".repeat(mib)}"`;
  const address = await serve({
    get: async () => ({ entry: { valueJson } }),
    set: async () => ({ previous: { valueJson } }),
  });
  const session = await sessionTo(address);
  const send = async (name: string) => {
    const streams = Array.from({ length: 8 }, () => open(session, path(name)));
    for (const stream of streams) stream.end(grpcMessage(Buffer.alloc(0)));
    const answers = await Promise.all(streams.map((stream) => once(stream, "response")));
    // Of a reply that is on its way the status comes last.
    return answers.map(([headers]) => Number(headers["grpc-status"] ?? status.OK));
  };

  const reads = await send("Get");
  const writes = await send("Set");

  expect(reads).toContain(status.RESOURCE_EXHAUSTED);
  expect(writes).toContain(status.UNKNOWN);
  expect(codes().sort()).toEqual([...reads, ...writes].sort());
});

/** A method that waits to be ended, and a call to it that has reached it. */
async function callOfMine() {
  let came: (ways: { answer: () => void; fail: () => void }) => void;
  const reached = new Promise<{ answer: () => void; fail: () => void }>((resolve) => {
    came = resolve;
  });
  const address = await serve({
    get: (_request, { signal }) =>
      new Promise((resolve, reject) => {
        came({ answer: () => resolve({}), fail: () => reject(signal.reason) });
      }),
  });
  const session = await sessionTo(address);
  const stream = open(session, path("Get"));
  stream.end(grpcMessage(Buffer.alloc(0)));
  return { session, stream, ...(await reached) };
}

test.for(["answer", "fail"] as const)(
  "a call that was open for too long is told of with DEADLINE_EXCEEDED, whatever became of it: %s",
  async (how) => {
    const call = await callOfMine();
    expect(await statusOf(call.stream)).toBe(status.DEADLINE_EXCEEDED);
    expect(finished).toEqual([]);

    call[how]();

    await expect.poll(codes).toEqual([status.DEADLINE_EXCEEDED]);
  },
);

test.for(["answer", "fail"] as const)(
  "a call whose client has gone is told of with CANCELLED, whatever became of it: %s",
  async (how) => {
    const call = await callOfMine();
    call.stream.close(8);
    await once(call.stream, "close");
    // Comes after the reset.
    await new Promise((resolve) => call.session.ping(resolve));

    call[how]();

    await expect.poll(codes).toEqual([status.CANCELLED]);
  },
);

test("a reply that can't be encoded is INTERNAL, told of with why, and the next call is served", async () => {
  const broken = { entry: { valueJson: 1n as unknown as string } };
  const replies = [broken, {}];
  const address = await serve({ get: async () => replies.shift() ?? {} });
  const session = await sessionTo(address);
  const call = () => statusOf(open(session, path("Get")).end(grpcMessage(Buffer.alloc(0))));

  expect([await call(), await call()]).toEqual([status.INTERNAL, status.OK]);
  expect(codes()).toEqual([status.INTERNAL, status.OK]);
  expect(finished[0]?.error).toBeInstanceOf(TypeError);
});

test("an answer that node refuses to send ends its call, and nothing else", async () => {
  const streams: ServerHttp2Stream[] = [];
  let answer: (() => void) | undefined;
  const get = () => new Promise<object>((resolve) => (answer = () => resolve({})));
  const address = await serve({ get, list: async () => ({}) }, [
    (_method, call) => {
      streams.push((call as unknown as { stream: ServerHttp2Stream }).stream);
      return call as never;
    },
  ]);
  const session = await sessionTo(address);
  open(session, path("Get")).end(grpcMessage(Buffer.alloc(0)));
  await expect.poll(() => answer).toBeDefined();
  // Somebody answered beside grpc-js.
  streams[0]!.respond({ ":status": 200 });

  answer?.();

  await expect.poll(codes).toEqual([status.INTERNAL]);
  const other = open(session, path("List")).end(grpcMessage(Buffer.alloc(0)));
  expect(await statusOf(other)).toBe(status.OK);
});

test("a call that was open for too long, and whose client reads nothing, can still be answered", async () => {
  let answer: (() => void) | undefined;
  const valueJson = `"${"x".repeat(mib)}"`;
  const address = await serve({
    list: async () => ({ entries: [{ valueJson }] }),
    get: () => new Promise((resolve) => (answer = () => resolve({}))),
  });
  const empty = grpcMessage(Buffer.alloc(0)).toString("base64");
  const calls = [
    { path: path("List"), message: empty, count: 20, headers: {} },
    { path: path("Get"), message: empty, count: 1, headers: {} },
  ];
  await using _client = await BadClient.start({
    behaviour: "frozen",
    window: 2 ** 31 - 1,
    blockedMs: 0,
    connections: [{ address, isSecure: false, calls }],
  });
  await expect.poll(() => answer).toBeDefined();
  await new Promise((resolve) => setTimeout(resolve, 2 * maxCallMs));

  answer?.();

  await expect.poll(codes).toContain(status.DEADLINE_EXCEEDED);
  expect(codes()).not.toContain(status.INTERNAL);
});
