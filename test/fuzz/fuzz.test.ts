import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { type ClientHttp2Session, connect } from "node:http2";
import { connect as connectSocket } from "node:net";
import { createInterface } from "node:readline";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { open } from "../rpc/raw-client.ts";
import { TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { type Recording, recordFrames, socketInput } from "./frame-inputs.ts";
import { grpcInput } from "./grpc-inputs.ts";
import { Random } from "./random.ts";

const inputs = Number(process.env["PLUGIN_STATE_FUZZ_INPUTS"] ?? 3_000);
const seed = Number(process.env["PLUGIN_STATE_FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
/** What a heap may be larger by after any number of inputs: caches, compiled code. */
const heapSlackBytes = 16 * 1024 * 1024;

/** Codes that mean a fault of ours. The stack answers none of the inputs by itself with one of them. */
const faults: readonly number[] = [status.INTERNAL, status.UNKNOWN];

let database: TestDatabase;
let sidecar: ChildProcess;
let address: string;
const log: string[] = [];

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
  const serve = [
    "dist/main.js",
    "serve",
    "--plugin",
    "demo",
    "--listen",
    "127.0.0.1:0",
    "--max-call-ms",
    "2000",
    "--max-connections",
    "5000",
  ];
  sidecar = spawn(
    process.execPath,
    ["--expose-gc", "--import", "./test/fuzz/report-heap.js", ...serve],
    {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, DATABASE_URL: database.url },
    },
  );
  createInterface({ input: sidecar.stderr! }).on("line", (line) => void log.push(line));
  const [line] = await once(createInterface({ input: sidecar.stdout! }), "line");
  address = JSON.parse(line).bindings[0].address;
});

afterEach(async () => {
  if (sidecar.exitCode === null && sidecar.signalCode === null) {
    sidecar.kill("SIGKILL");
    await once(sidecar, "exit");
  }
  await database[Symbol.asyncDispose]();
});

test(`${inputs} inputs of any kind get an answer or a closed connection, never a fault (seed ${seed})`, {
  timeout: 900_000,
}, async () => {
  using good = new TestClient(address);
  const calls = callOn(good);
  const frames = await recordFrames(
    "/pluginstate.v1.PluginStateService/GetServerInfo",
    Buffer.alloc(0),
  );
  const random = new Random(seed);
  await feed(random, frames, Math.ceil(inputs / 5));
  await expect.poll(sockets, { timeout: 90_000 }).toBeLessThan(20);
  const before = await look();
  await feed(random, frames, Math.ceil((inputs * 4) / 5));
  expect(await calls.stop(), "calls of the good client").toBeGreaterThan(0);
  expect(sidecar.exitCode).toBeNull();
  expect(log.filter((line) => /"code":"(INTERNAL|UNKNOWN)"|uncaught/.test(line))).toEqual([]);
  await expect.poll(sockets, { timeout: 90_000 }).toBeLessThanOrEqual(before.sockets);
  const after = await look();
  expect(after.databaseConnections).toBeLessThanOrEqual(3);
  expect(after.heapUsed).toBeLessThan(before.heapUsed + heapSlackBytes);
  console.log(`seed ${seed}: ${inputs} inputs`, { before, after });
});

/** A client that behaves and calls all the time. */
function callOn(client: TestClient): { stop: () => Promise<number> } {
  let running = true;
  const name = { scope: { kind: ScopeKind.INSTANCE }, namespace: "good", key: "k" };
  const calling = (async () => {
    let count = 0;
    for (; running; count++) {
      await client.call("set", { ...name, valueJson: String(count) });
      expect((await client.call("get", name)).entry?.valueJson).toBe(String(count));
    }
    return count;
  })();
  calling.catch(() => {});
  return {
    stop: () => {
      running = false;
      return calling;
    },
  };
}

/** A fifth of them raw bytes on sockets, the others calls. */
async function feed(random: Random, frames: Recording, count: number): Promise<void> {
  const session = sessions();
  const workers = Array.from({ length: 32 }, async (_, worker) => {
    for (let n = worker; n < count; n += 32) {
      if (n % 5 === 0) {
        await sendBytes(socketInput(random, frames));
      } else {
        await sendCall(session.current(), random);
      }
    }
  });
  await Promise.all(workers);
  session.close();
}

/** A connection; another one when it was closed, as it is after some damage. */
function sessions() {
  let session: ClientHttp2Session | undefined;
  return {
    current: () => {
      if (session === undefined || session.destroyed || session.closed) {
        session = connect(`http://${address}`);
        session.setMaxListeners(0);
        session.on("error", () => {});
      }
      return session;
    },
    close: () => session?.destroy(),
  };
}

async function sendCall(session: ClientHttp2Session, random: Random): Promise<void> {
  const { path, headers, body, isEnded } = grpcInput(random);
  const stream = open(session, path, headers);
  let code = "";
  const note = (answer: Record<string, unknown>) => {
    code = String(answer["grpc-status"] ?? code);
  };
  stream.on("response", note).on("trailers", note).resume();
  const closed = new Promise((resolve) => stream.once("close", resolve));
  if (isEnded) {
    stream.end(body);
  } else {
    stream.write(body, () => stream.close(8));
  }
  await closed;
  const what = `${path} ${JSON.stringify(headers)} ${body.subarray(0, 100).toString("hex")}`;
  expect(faults, `${code} for ${what}`).not.toContain(code === "" ? -1 : Number(code));
}

/** Sends all, reads what comes, and goes when the sidecar closes or after a while. */
function sendBytes(bytes: Buffer): Promise<void> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const socket = connectSocket(Number(port), host, () => socket.end(bytes));
    socket.resume();
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED") reject(error);
    });
    const timer = setTimeout(() => socket.destroy(), 500);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

async function look() {
  const count =
    "select count(*)::int as count from pg_stat_activity where datname = current_database()";
  const [row] = await database.query<{ count: number }>(
    `${count} and application_name like 'plugin-state%'`,
  );
  return { heapUsed: await heapUsed(), sockets: sockets(), databaseConnections: row!.count };
}

async function heapUsed(): Promise<number> {
  const from = log.length;
  sidecar.kill("SIGUSR2");
  const found = () => log.slice(from).find((line) => line.startsWith('{"heapUsed"'));
  await expect.poll(found, { timeout: 30_000 }).toBeDefined();
  return JSON.parse(found()!).heapUsed;
}

/** Open sockets of the sidecar; 0 where the system doesn't tell. */
function sockets(): number {
  const directory = `/proc/${sidecar.pid}/fd`;
  if (!existsSync(directory)) return 0;
  return readdirSync(directory).filter((fd) => {
    try {
      return readlinkSync(`${directory}/${fd}`).startsWith("socket:");
    } catch {
      return false;
    }
  }).length;
}
