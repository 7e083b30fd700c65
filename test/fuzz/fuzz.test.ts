import { type ClientHttp2Session, connect } from "node:http2";
import { connect as connectSocket } from "node:net";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { open, preface } from "../rpc/raw-client.ts";
import { TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { WatchedSidecar } from "../support/watched-sidecar.ts";
import { statusesIn } from "./frame-answers.ts";
import { type Recording, recordFrames, socketInput } from "./frame-inputs.ts";
import { type GrpcInput, grpcInput } from "./grpc-inputs.ts";
import { Random } from "./random.ts";

const inputs = Number(process.env["PLUGIN_STATE_FUZZ_INPUTS"] ?? 3_000);
const seed = Number(process.env["PLUGIN_STATE_FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
/** What a heap may be larger by after any number of inputs: caches, compiled code. */
const heapSlackBytes = 16 * 1024 * 1024;

/** Codes that mean a fault of ours. The stack answers none of the inputs by itself with one of them. */
const faults: readonly number[] = [status.INTERNAL, status.UNKNOWN];

const socketsAtOnce = 128;
const callsAtOnce = 64;
/** How long a connection may stay open on which neither side has anything more to say. */
const patienceMs = 300;
/** Ample: the sidecar ends every call after 2 s. */
const answerWithinMs = 30_000;
/** So many inputs leave time to wait until pings have found the connections whose client has gone. */
const waitsForPings = inputs >= 20_000;

let database: TestDatabase;
let sidecar: WatchedSidecar;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
  const bounds = ["--max-call-ms", "2000", "--max-connections", "20000"];
  sidecar = await WatchedSidecar.start(database.url, ...bounds);
});

afterEach(async () => {
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

test(`${inputs} inputs of any kind get an answer or a closed connection, never a fault (seed ${seed})`, {
  timeout: 60_000 + inputs * 5,
}, async () => {
  using good = new TestClient(sidecar.address);
  const calls = callOn(good);
  const frames = await recordFrames(
    "/pluginstate.v1.PluginStateService/GetServerInfo",
    Buffer.alloc(0),
  );
  await expect
    .poll(async () => statusesIn(await exchange(Buffer.concat([preface, ...frames]), false)), {
      message: "answers that are read as raw bytes",
    })
    .toEqual([0]);
  await feed(frames, 0, Math.ceil(inputs / 5));
  await untilPinged();
  const before = await look();
  await feed(frames, Math.ceil(inputs / 5), inputs);
  expect(await calls.stop(), "calls of the good client").toBeGreaterThan(0);
  expect(sidecar.end).toBeNull();
  await untilPinged();
  expect(sidecar.log.filter((line) => /"code":"(INTERNAL|UNKNOWN)"|uncaught/.test(line))).toEqual(
    [],
  );

  const after = await look();
  console.log(`seed ${seed}: ${inputs} inputs`, { before, after });
  expect(after.databaseConnections).toBeLessThanOrEqual(3);
  expect(after.heapUsed).toBeLessThan(before.heapUsed + heapSlackBytes);
});

/** Waits until the connections whose client has gone are closed, so that what is left can be compared. */
async function untilPinged(): Promise<void> {
  if (waitsForPings) {
    await expect.poll(() => sidecar.sockets(), { timeout: 90_000 }).toBeLessThan(20);
  }
}

/** A client that behaves and calls all the time. */
function callOn(client: TestClient): { stop: () => Promise<number> } {
  let running = true;
  const name = { scope: { kind: ScopeKind.INSTANCE }, namespace: "good", key: "k" };
  const calling = (async () => {
    let count = 0;
    for (; running; count++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
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

/**
 * A fifth of them raw bytes on sockets, the others calls. An input depends on the seed and its number
 * alone, whatever else is under way.
 */
async function feed(frames: Recording, from: number, to: number): Promise<void> {
  const numbers = Array.from({ length: to - from }, (_, n) => from + n);
  const session = sessions();
  await Promise.all([
    each(
      numbers.filter((n) => n % 5 === 0),
      socketsAtOnce,
      (n) => sendBytes(n, socketInput(new Random(seed, n), frames)),
    ),
    each(
      numbers.filter((n) => n % 5 !== 0),
      callsAtOnce,
      (n) => sendCall(n, session.current(), grpcInput(new Random(seed, n))),
    ),
  ]);
  session.close();
}

async function each(
  numbers: readonly number[],
  atOnce: number,
  send: (n: number) => Promise<void>,
): Promise<void> {
  const left = numbers.values();
  const workers = Array.from({ length: atOnce }, async () => {
    for (const n of left) await send(n);
  });
  await Promise.all(workers);
}

/** A connection; another one when it was closed, as it is after some damage. */
function sessions() {
  let session: ClientHttp2Session | undefined;
  return {
    current: () => {
      if (session === undefined || session.destroyed || session.closed) {
        session = connect(`http://${sidecar.address}`);
        session.setMaxListeners(0);
        session.on("error", () => {});
      }
      return session;
    },
    close: () => session?.destroy(),
  };
}

async function sendCall(n: number, session: ClientHttp2Session, input: GrpcInput): Promise<void> {
  const { path, headers, body, isEnded } = input;
  const stream = open(session, path, headers);
  let code = -1;
  const note = (answer: Record<string, unknown>) => {
    code = Number(answer["grpc-status"] ?? code);
  };
  stream.on("response", note).on("trailers", note).resume();
  const closed = new Promise((resolve) => stream.once("close", resolve));
  if (isEnded) {
    stream.end(body);
  } else {
    stream.write(body, () => stream.close(8));
  }
  let isAnswered = true;
  const timer = setTimeout(() => {
    isAnswered = false;
    stream.destroy();
  }, answerWithinMs);
  await closed;
  clearTimeout(timer);
  const what = `${path} ${JSON.stringify(headers)} ${body.subarray(0, 100).toString("hex")}`;
  expect(faults, `input ${n}: ${code} for ${what}`).not.toContain(code);
  expect(isAnswered, `an answer to input ${n}: ${what}`).toBe(true);
}

async function sendBytes(n: number, bytes: Buffer): Promise<void> {
  // Half of them wait for answers, the others' end comes at once.
  const statuses = statusesIn(await exchange(bytes, n % 2 === 0));
  for (const code of statuses) {
    expect(faults, `input ${n}: ${code} for ${bytes.toString("hex")}`).not.toContain(code);
  }
}

/** Sends all, reads what comes, and goes when the sidecar closes or after a while. */
async function exchange(bytes: Buffer, endsAtOnce: boolean): Promise<Buffer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await exchangeOnce(bytes, endsAtOnce);
    } catch (error) {
      // A full queue of connections that wait to be accepted is refused on some systems: try again, unless
      // nobody is there any more.
      if (sidecar.end !== null || attempt === 20) {
        const end = `${sidecar.end}, after: ${sidecar.log.slice(-3).join("\n")}`;
        throw new Error(`the sidecar refuses connections; it ended with ${end}`, { cause: error });
      }
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

function exchangeOnce(bytes: Buffer, endsAtOnce: boolean): Promise<Buffer> {
  const [host, port] = sidecar.address.split(":");
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    const socket = connectSocket(Number(port), host, () => {
      socket.write(bytes);
      if (endsAtOnce) socket.end();
    });
    socket.on("data", (chunk) => void chunks.push(chunk));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED") reject(error);
    });
    const timer = setTimeout(() => socket.destroy(), patienceMs);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(Buffer.concat(chunks));
    });
  });
}

async function look() {
  const count =
    "select count(*)::int as count from pg_stat_activity where datname = current_database()";
  const [row] = await database.query<{ count: number }>(
    `${count} and application_name like 'plugin-state%'`,
  );
  return {
    heapUsed: await sidecar.heapUsed(),
    sockets: sidecar.sockets(),
    databaseConnections: row!.count,
  };
}
