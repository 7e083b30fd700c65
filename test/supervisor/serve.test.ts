import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { HealthStatus } from "../../src/supervisor/supervisor.ts";
import { type CallError, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { holdWrites } from "../support/hold-writes.ts";
import { FaultProxy } from "../support/proxy.ts";
import { failedStart, real, supervise, untilGone } from "./supervise.ts";

const patient = { timeout: 20_000 };
const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
});

afterEach(() => database[Symbol.asyncDispose]());

test("a sidecar killed with -9 is started again at the same address, and calls work", async () => {
  const { sidecar, told } = await supervise(real(database));
  const [binding] = sidecar.bindings;
  using client = new TestClient(binding!.address);
  await client.call("set", { ...name, valueJson: "1" });
  await sidecar.health.until("SERVING");

  process.kill(sidecar.pid!, "SIGKILL");
  await expect.poll(() => told.of("exited").length, patient).toBe(1);
  // It waits in the queue of the open socket, until the next process takes it from there.
  expect(await whoAnswers(binding!.address)).toBe("a sidecar");
  await expect.poll(() => told.of("ready").length, patient).toBe(2);
  expect(sidecar.bindings).toEqual([binding]);
  expect(told.of("addresses_changed")).toEqual([]);
  await sidecar.health.until("SERVING");
  using next = new TestClient(binding!.address);
  expect((await next.call("get", name)).entry?.valueJson).toBe("1");
  const statuses = told.of("health").map(({ status }) => status);
  expect(statuses).toEqual(["SERVING", "UNKNOWN", "SERVING"]);
});

test("a plugin that isn't registered is NOT_SERVING by itself, without a restart, until it is", async () => {
  const { sidecar, told } = await supervise({
    ...real(database),
    bindings: [{ plugin: "demo" }, { plugin: "acme.later" }],
  });
  expect(sidecar.bindings).toMatchObject([
    { plugin: "demo", pluginId: expect.any(String) },
    { plugin: "acme.later", pluginId: null },
  ]);
  const statuses = () => sidecar.health.bindings.map(({ status }) => status);
  await expect.poll(statuses, patient).toEqual(["SERVING", "NOT_SERVING"]);
  expect(told.log.join()).toContain("plugin add acme.later");

  await database.addPlugin("acme.later");

  await sidecar.health.until("SERVING");
  using client = new TestClient(sidecar.bindings[1]!.address);
  await client.call("set", { ...name, valueJson: "1" });
  expect(sidecar.restarts).toBe(0);
});

test("a start that fails is told with the sidecar's own reason", async () => {
  const { error } = await failedStart(real(database, "--state-schema", "another"));

  expect(error).toMatchObject({
    reason: "STATE_SCHEMA_DIFFERS",
    retryable: false,
    exit: { code: 78 },
  });
  expect(error.message).toContain("plugin_sidecar");
});

test("health follows an outage of the database, and every binding has its own", async () => {
  await database.addPlugin("other");
  await using proxy = await FaultProxy.before(database.url);
  const { sidecar } = await supervise({
    ...real(database, "--database-timeout-ms", "1000"),
    databaseUrl: proxy.through(database.url),
    bindings: [{ plugin: "demo" }, { plugin: "other" }],
  });
  const seen: HealthStatus[] = [];
  sidecar.health.onChange((status) => seen.push(status));
  await sidecar.health.until("SERVING");

  await proxy.close();
  await sidecar.health.until("NOT_SERVING");
  await proxy.open();
  await sidecar.health.until("SERVING");

  expect(seen.slice(-2)).toEqual(["NOT_SERVING", "SERVING"]);
  expect(sidecar.restarts).toBe(0);
  expect(sidecar.health.bindings.map(({ plugin, status }) => [plugin, status])).toEqual([
    ["demo", "SERVING"],
    ["other", "SERVING"],
  ]);
});

test("stop lets a call in flight finish", async () => {
  const { sidecar } = await supervise(real(database));
  using client = new TestClient(sidecar.bindings[0]!.address);
  await client.call("set", { ...name, valueJson: "0" });

  const held = await holdWrites(database);
  const inFlight = client.call("set", { ...name, valueJson: "1" });
  await held.areWaiting(1);
  const stopping = sidecar.stop();
  await expect.poll(() => isRefused(sidecar.bindings[0]!.address), patient).toBe(true);
  await held.release();

  expect(await inFlight).toMatchObject({ created: false, revision: 2n });
  await stopping;
  expect(await sidecar.onExit).toEqual({ reason: "stopped", exit: { code: 0, signal: null } });
});

test("a host that has stopped its sidecar has nothing left that keeps it running", async () => {
  const script = fileURLToPath(new URL("host.js", import.meta.url));
  const host = spawn(process.execPath, [script, database.url, "stop"], { stdio: "inherit" });
  onTestFinished(() => void host.kill("SIGKILL"));

  expect(await once(host, "exit")).toEqual([0, null]);
});

test("a host that is killed leaves no sidecar behind", async () => {
  const script = fileURLToPath(new URL("host.js", import.meta.url));
  const host = spawn(process.execPath, [script, database.url], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void host.kill("SIGKILL"));
  const [pid] = await once(createInterface({ input: host.stdout }), "line");

  host.kill("SIGKILL");

  await untilGone(Number(pid));
});

/** A process that starts says that it has no database yet; without one there is no answer at all. */
async function whoAnswers(address: string): Promise<string> {
  using client = new TestClient(address);
  return await client.call("get", name, { deadlineMs: 20_000 }).then(
    () => "a sidecar",
    (error: CallError) => (error.reason === "DATABASE_UNAVAILABLE" ? "a sidecar" : error.codeName),
  );
}

async function isRefused(address: string): Promise<boolean> {
  using client = new TestClient(address);
  return await client.call("get", name, { deadlineMs: 500 }).then(
    () => false,
    () => true,
  );
}
