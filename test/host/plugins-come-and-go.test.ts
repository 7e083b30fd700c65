import { expect, onTestFinished, test } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { dial, unary } from "../rpc/peers.ts";
import { failure } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { healthOf } from "../support/health.ts";
import { hostTables } from "../support/host-tables.ts";
import { demoDatabase, dialState, everyRound, name } from "./contract.ts";
import { holdSocket } from "./held-socket.ts";
import { SidecarProcess } from "./sidecar-process.ts";

const service = "pluginstate.v1.PluginStateService";
const soon = { timeout: 20_000, interval: 20 };

/** Serves `demo` and one that isn't registered. */
async function serveTwo(database: TestDatabase, ...flags: string[]) {
  const sidecar = new SidecarProcess({
    databaseUrl: database.url,
    flags: ["--plugin", "acme.later", "--listen", "127.0.0.1:0", ...flags],
  });
  const line = await sidecar.line();
  const [demo, later] = line.bindings;
  return { sidecar, line, demo: demo!.address, later: later!.address };
}

async function listed(address: string): Promise<string[]> {
  const { statuses } = await unary(dial(address), Health.method.list, {});
  return Object.keys(statuses).sort();
}

function lines(sidecar: SidecarProcess, text: string): number {
  return sidecar.stderr.split("\n").filter((line) => line.includes(text)).length;
}

test(
  "a plugin that isn't registered is ready with pluginId null, NOT_SERVING, and keeps nobody from it",
  everyRound,
  async () => {
    const database = await demoDatabase();
    const { sidecar, line, demo, later } = await serveTwo(database);

    expect(line.bindings).toEqual([
      { plugin: "demo", pluginId: expect.stringMatching(/^[0-9a-f-]{36}$/), address: demo },
      {
        plugin: "acme.later",
        pluginId: null,
        address: later,
        state: "NOT_SERVING",
        reason: "PLUGIN_NOT_REGISTERED",
      },
    ]);
    await dialState(demo).call("set", { ...name, valueJson: "1" });
    const refused = dialState(later).call("get", name, { deadlineMs: 4_000 });
    expect((await failure(refused)).reason).toBe("PLUGIN_NOT_REGISTERED");
    expect(lines(sidecar, "the plugin isn't registered")).toBe(1);
    expect(await sidecar.stop()).toEqual({ code: 0, signal: null });
  },
);

test("it is SERVING within seconds of its registration, by itself", everyRound, async () => {
  const database = await demoDatabase();
  const { sidecar, later } = await serveTwo(database);

  await database.addPlugin("acme.later");

  await expect.poll(() => healthOf(later, service), soon).toBe("SERVING");
  await dialState(later).call("set", { ...name, valueJson: "1" });
  expect(lines(sidecar, "the plugin is served")).toBe(2);
});

test(
  "each binding has a health service; the process serves while one of them does",
  everyRound,
  async () => {
    const database = await demoDatabase();
    const { line, demo, later } = await serveTwo(database, "--health-listen", "127.0.0.1:0");
    const apart = line.healthAddress!;

    for (const address of [demo, later, apart]) {
      expect(await healthOf(address)).toBe("SERVING");
      expect(await healthOf(address, "plugin/demo")).toBe("SERVING");
      expect(await healthOf(address, "plugin/acme.later")).toBe("NOT_SERVING");
      expect(await healthOf(address, "liveness")).toBe("SERVING");
    }
    expect(await healthOf(demo, service)).toBe("SERVING");
    expect(await healthOf(later, service)).toBe("NOT_SERVING");
    expect(await healthOf(apart, service)).toBe("SERVING");
    expect(await listed(apart)).toEqual([
      "",
      "liveness",
      "plugin/acme.later",
      "plugin/demo",
      service,
    ]);
    expect(await listed(demo)).toEqual(["", "liveness", "plugin/demo", service]);

    await database.query("delete from plugin_sidecar.plugins where plugin_key = 'demo'");
    await expect.poll(() => healthOf(apart), soon).toBe("NOT_SERVING");
    expect(await healthOf(apart, "plugin/demo")).toBe("NOT_SERVING");
    expect(await healthOf(apart, "liveness")).toBe("SERVING");
  },
);

test(
  "a sidecar that starts before its host has migrated waits, NOT_SERVING, and says so once; then it serves",
  everyRound,
  async () => {
    const database = await testDatabase("template0");
    onTestFinished(() => database[Symbol.asyncDispose]());
    const { fd, address } = holdSocket();
    const sidecar = new SidecarProcess({
      databaseUrl: database.ownerUrl,
      flags: ["--state-schema", "public"],
      listen: "fd:3",
      stdio: ["ignore", "pipe", "pipe", fd],
    });
    await sidecar.logged("waiting for the host: schema public has no tables");
    expect(await healthOf(address)).toBe("NOT_SERVING");
    const refused = dialState(address).call("get", name, { deadlineMs: 4_000 });
    expect((await failure(refused)).reason).toBe("DATABASE_UNAVAILABLE");
    // It asks more than once meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(lines(sidecar, "waiting for the host")).toBe(1);
    expect(sidecar.stdout).toBe("");

    await database.query(hostTables);

    expect(await sidecar.address()).toBe(address);
    expect(await healthOf(address)).toBe("SERVING");
    await dialState(address).call("set", { ...name, valueJson: "1" });
  },
);

test("one that may not migrate waits for its host likewise", everyRound, async () => {
  const database = await testDatabase("template0");
  onTestFinished(() => database[Symbol.asyncDispose]());
  const flags = ["--state-schema", "public", "--no-migrate"];
  const sidecar = new SidecarProcess({ databaseUrl: database.ownerUrl, flags });
  await sidecar.logged("waiting for the host");
  expect(sidecar.isRunning).toBe(true);
  expect(await sidecar.stop()).toEqual({ code: 0, signal: null });
});
