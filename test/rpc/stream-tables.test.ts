import { once } from "node:events";
import { type ClientHttp2Session, connect, type ServerHttp2Session } from "node:http2";
import { type Server, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, expect, test } from "vitest";
import { drain, type Listener, listen } from "../../src/rpc/listener.ts";
import { createGrpcServer } from "../../src/rpc/server-options.ts";
import { renewStreamTables } from "../../src/rpc/stream-tables.ts";
import { methodAt } from "./peers.ts";

let server: Server;
let listener: Listener;
let client: ClientHttp2Session;
const sessions = new Set<ServerHttp2Session>();

beforeEach(async () => {
  server = createGrpcServer({
    maxReceiveBytes: 1024,
    maxSendBytes: 1024,
    maxConcurrentStreams: 100,
    interceptors: [
      (_method, call) => {
        sessions.add(
          (call as unknown as { stream: { session: ServerHttp2Session } }).stream.session,
        );
        return call as never;
      },
      renewStreamTables(),
    ],
  });
  server.addService(
    {
      echo: methodAt("/test.Echo/Echo"),
    },
    {
      echo: (_call: unknown, callback: (error: null, reply: Buffer) => void) =>
        callback(null, Buffer.alloc(0)),
    },
  );
  listener = await listen(server, { kind: "tcp", host: "127.0.0.1", port: 0 });
  client = connect(`http://${listener.address}`);
});

afterEach(async () => {
  client.destroy();
  await drain(server, 0);
  sessions.clear();
});

test("node keeps its table of streams where it is looked for, and gets another after some calls", async () => {
  await call();
  const first = tableOf();
  expect(first?.constructor.name).toMatch(/Map$/);
  for (let n = 0; n < 300; n++) {
    expect(await call()).toBe(String(status.OK));
  }
  expect(tableOf()).not.toBe(first);
});

test("calls that are open while the table is renewed end as any other, and so does the connection", async () => {
  const open = Array.from({ length: 20 }, () => start());
  for (let n = 0; n < 600; n++) {
    await call();
  }
  const ends = open.map((stream) => statusOf(stream));
  for (const stream of open) {
    stream.end(Buffer.alloc(5));
  }
  expect(await Promise.all(ends)).toEqual(Array(20).fill(String(status.OK)));
  expect(await drainWithin(server)).toBe("drained");
});

async function drainWithin(of: Server) {
  client.close();
  return await drain(of, 5_000);
}

function start() {
  return client.request({
    ":method": "POST",
    ":path": "/test.Echo/Echo",
    "content-type": "application/grpc",
    te: "trailers",
  });
}

async function call(): Promise<string> {
  const stream = start();
  const end = statusOf(stream);
  stream.end(Buffer.alloc(5));
  return await end;
}

async function statusOf(stream: ReturnType<typeof start>): Promise<string> {
  stream.resume();
  const [trailers] = await once(stream, "trailers");
  return String(trailers["grpc-status"]);
}

function tableOf(): object | undefined {
  const [session] = sessions;
  const key = Object.getOwnPropertySymbols(session).find(
    ({ description }) => description === "state",
  );
  const state = key && (Reflect.get(session!, key) as { streams?: object });
  return state?.streams;
}
