import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { type HostLine, readyLine } from "./support/host-line.ts";

let database: TestDatabase;
const children: ChildProcess[] = [];

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }
  await database[Symbol.asyncDispose]();
});

/** The real command on the test's database. */
function start(flags: readonly string[], environment: NodeJS.ProcessEnv = {}): ChildProcess {
  const args = ["dist/main.js", "serve", "--plugin", "demo", "--listen", "127.0.0.1:0", ...flags];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...database.environment, ...environment },
  });
  children.push(child);
  return child;
}

/** The same, ready. */
async function serve(...flags: string[]): Promise<{ child: ChildProcess; ready: HostLine }> {
  const child = start(flags);
  child.stderr?.resume();
  return { child, ready: await readyLine(child) };
}

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

test("one ready line says who serves which plugin where", async () => {
  const { child, ready } = await serve();
  expect(ready).toMatchObject({ event: "ready", pid: child.pid });
  expect(ready.bindings).toEqual([
    {
      plugin: "demo",
      pluginId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      address: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    },
  ]);
  expect(await healthOf(ready.bindings[0]!.address, "pluginstate.v1.PluginStateService")).toBe(
    "SERVING",
  );
});

test.each([
  ["npm start says how to call it", "plugin-state-sidecar", true],
  ["a host that was started by npm start finds log lines alone", "a-host", false],
])("%s", async (_what, packageName, isTold) => {
  const child = start([], { npm_lifecycle_event: "start", npm_package_name: packageName });
  let said = "";
  child.stderr?.on("data", (text) => {
    said += text;
  });
  const { bindings } = await readyLine(child);
  await expect.poll(() => said.includes(isTold ? "Ctrl-C" : '"msg":"ready"')).toBe(true);
  child.kill("SIGTERM");
  await once(child, "close");
  const call = `${bindings[0]!.address} pluginstate.v1.PluginStateService/Set`;
  expect(said.includes(call)).toBe(isTold);
  const lines = said.trim().split("\n");
  expect(lines.every((line) => line.startsWith("{"))).toBe(!isTold);
});

test("SIGTERM lets a call in flight finish and exits 0", async () => {
  const { child, ready } = await serve();
  using client = new TestClient(ready.bindings[0]!.address);
  await client.call("set", { ...name, valueJson: "0" });

  const exit = once(child, "exit");
  const held = await holdWrites(database);
  const inFlight = client.call("set", { ...name, valueJson: "1" });
  await held.areWaiting(1);
  child.kill("SIGTERM");
  using newcomer = new TestClient(ready.bindings[0]!.address);
  await expect
    .poll(() =>
      newcomer.call("get", name, { deadlineMs: 500 }).then(
        () => "ok",
        () => "refused",
      ),
    )
    .toBe("refused");
  await held.release();
  expect(await inFlight).toMatchObject({ created: false, revision: 2n });
  expect(await exit).toEqual([0, null]);
});

test("a drain that takes too long is cut short by its timeout", async () => {
  const { child, ready } = await serve(
    "--drain-timeout-ms",
    "300",
    "--database-timeout-ms",
    "1000",
  );
  using client = new TestClient(ready.bindings[0]!.address);
  await client.call("set", { ...name, valueJson: "0" });
  const exit = once(child, "exit");
  const held = await holdWrites(database);
  const inFlight = client.call("set", { ...name, valueJson: "1" }).catch((error) => error.codeName);
  await held.areWaiting(1);
  child.kill("SIGTERM");
  expect(await inFlight).toBe("UNAVAILABLE");
  expect(await exit).toEqual([0, null]);
});

test("what was acknowledged before a kill -9 is there for the next sidecar", async () => {
  const { child, ready } = await serve();
  using client = new TestClient(ready.bindings[0]!.address);
  const acknowledged: number[] = [];
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    for (let n = 0; ; n++) {
      const key = `${writer}/${n}`;
      await client.call("set", { scope: name.scope, key, valueJson: `${n}` });
      acknowledged[writer] = n;
    }
  });
  await expect
    .poll(() => Math.min(...acknowledged, acknowledged.length === 8 ? 99 : 0))
    .toBeGreaterThan(5);
  child.kill("SIGKILL");
  await Promise.allSettled(writers);

  const second = await serve();
  using reader = new TestClient(second.ready.bindings[0]!.address);
  for (const [writer, last] of acknowledged.entries()) {
    const { entry } = await reader.call("get", { scope: name.scope, key: `${writer}/${last}` });
    expect(entry?.valueJson).toBe(`${last}`);
  }
});
