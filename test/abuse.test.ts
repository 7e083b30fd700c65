import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import type { ClientHttp2Session } from "node:http2";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { ListRequestSchema } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { grpcMessage, open, sessionTo } from "./rpc/raw-client.ts";
import { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { readyLine } from "./support/host-line.ts";

const mib = 1024 * 1024;
/** Each bound of bytes is 64 MiB; what node keeps beside them, and what isn't collected yet. */
const mostGrowthBytes = 450 * mib;
/** What stays after a client has gone: pages that the allocator keeps. */
const leftoverBytes = 250 * mib;
const streams = 1_024;

let database: TestDatabase;
let sidecar: ChildProcess;
let address: string;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
  sidecar = spawn(
    process.execPath,
    ["dist/main.js", "serve", "--plugin", "demo", "--listen", "127.0.0.1:0"],
    {
      stdio: ["ignore", "pipe", "ignore"],
      env: { ...process.env, DATABASE_URL: database.url },
    },
  );
  ({ address } = (await readyLine(sidecar)).bindings[0]!);
});

afterEach(async () => {
  if (sidecar.exitCode === null && sidecar.signalCode === null) {
    sidecar.kill("SIGKILL");
    await once(sidecar, "exit");
  }
  await database[Symbol.asyncDispose]();
});

test.skipIf(!existsSync("/proc/self/status")).each([
  ["asks for large pages in 1,024 streams and reads none", askAndNeverRead],
  ["begins 1,024 requests and finishes none", sendHalfRequests],
  ["opens and resets streams as fast as it can", resetStreams],
])(
  "a client that %s costs bounded memory, and no other client a call",
  {
    timeout: 240_000,
  },
  async (_what, abuse) => {
    using good = new TestClient(address);
    await writeLargeEntries(good);
    const before = residentBytes();
    const calls = callOn(good);
    let most = before;
    const watch = setInterval(() => {
      most = Math.max(most, residentBytes());
    }, 20);
    const session = await sessionTo(address);
    await abuse(session, calls);
    session.destroy();
    await calls.next(50);
    clearInterval(watch);
    await expect.poll(residentBytes, { timeout: 60_000 }).toBeLessThan(before + leftoverBytes);
    expect(await calls.stop(), "calls of the good client").toBeGreaterThan(0);
    expect(most).toBeLessThan(before + mostGrowthBytes);
  },
);

type Calls = ReturnType<typeof callOn>;

async function writeLargeEntries(client: TestClient): Promise<void> {
  for (let n = 0; n < 4; n++) {
    const valueJson = JSON.stringify("x".repeat(mib));
    const scope = { kind: ScopeKind.INSTANCE };
    await client.call("set", { scope, namespace: "large", key: `k${n}`, valueJson });
  }
}

/** Node gives a window back when something reads the stream. */
async function askAndNeverRead(session: ClientHttp2Session, calls: Calls): Promise<void> {
  const request: MessageInitShape<typeof ListRequestSchema> = {
    scope: { kind: ScopeKind.INSTANCE },
    namespace: "large",
  };
  const message = grpcMessage(toBinary(ListRequestSchema, create(ListRequestSchema, request)));
  const answered = Array.from({ length: streams }, () => {
    const stream = open(session, "/pluginstate.v1.PluginStateService/List");
    stream.end(message);
    return once(stream, "response");
  });
  await Promise.all(answered);
  await calls.next(20);
}

/** Says 8 MiB and sends 256 KiB of it: some are held, up to the bound of the connection; the rest are refused. */
async function sendHalfRequests(session: ClientHttp2Session, calls: Calls): Promise<void> {
  const header = Buffer.alloc(5);
  header.writeUInt32BE(8 * mib, 1);
  const part = Buffer.concat([header, Buffer.alloc(mib / 4)]);
  const sent = Array.from({ length: streams }, () => {
    const stream = open(session, "/pluginstate.v1.PluginStateService/Set");
    stream.on("error", () => {});
    return new Promise<void>((resolve) => stream.write(part, () => resolve()));
  });
  await Promise.all(sent);
  await calls.next(20);
}

async function resetStreams(session: ClientHttp2Session, calls: Calls): Promise<void> {
  for (let n = 0; n < 20_000 && !session.destroyed && !session.closed; n++) {
    const stream = open(session, "/pluginstate.v1.PluginStateService/GetServerInfo");
    stream.end(grpcMessage(Buffer.alloc(0)));
    stream.close(8);
    if (n % 100 === 0) await new Promise(setImmediate);
  }
  await calls.next(20);
}

/** A client that behaves and calls all the time; all its calls must succeed. */
function callOn(client: TestClient) {
  let running = true;
  let count = 0;
  const name = { scope: { kind: ScopeKind.INSTANCE }, namespace: "good", key: "k" };
  const calling = (async () => {
    for (; running; count++) {
      await client.call("set", { ...name, valueJson: String(count) });
      expect((await client.call("get", name)).entry?.valueJson).toBe(String(count));
    }
    return count;
  })();
  calling.catch(() => {});
  return {
    /** So many more calls. */
    next: async (more: number) => {
      const until = count + more;
      await Promise.race([
        calling,
        expect.poll(() => count, { timeout: 60_000 }).toBeGreaterThan(until),
      ]);
    },
    stop: () => {
      running = false;
      return calling;
    },
  };
}

function residentBytes(): number {
  const status = readFileSync(`/proc/${sidecar.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
