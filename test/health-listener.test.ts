import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import { Health } from "../src/gen/health/v1/health_pb.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { livenessService } from "../src/rpc/health.ts";
import { dial, read, serverStream } from "./rpc/peers.ts";
import { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { hostLine, readyLine } from "./support/host-line.ts";
import { testSidecar } from "./support/sidecar.ts";

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;
let directory: string;

beforeEach(async () => {
  database = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
});

afterEach(async () => {
  rmSync(directory, { recursive: true });
  await database[Symbol.asyncDispose]();
});

/** The real command, killed when the test ends. */
function serve(url: string, ...flags: string[]): ChildProcess {
  const args = ["dist/main.js", "serve", "--plugin", "demo", "--listen", "127.0.0.1:0", ...flags];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, DATABASE_URL: url },
  });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  return child;
}

async function sidecarWithHealth() {
  return await testSidecar(database, ["demo"], {
    healthListen: { kind: "tcp", host: "0.0.0.0", port: 0 },
  });
}

function near(address: string | undefined): string {
  return `127.0.0.1:${address?.split(":").at(-1)}`;
}

test("health is answered at an address that other machines reach, and state isn't", async () => {
  await using running = await sidecarWithHealth();
  const address = near(running.sidecar.healthAddress);

  expect(await healthOf(address)).toBe("SERVING");
  expect(await healthOf(address, "pluginstate.v1.PluginStateService")).toBe("SERVING");
  expect(await healthOf(address, livenessService)).toBe("SERVING");
  using stranger = new TestClient(address);
  await expect(stranger.call("get", name)).rejects.toMatchObject({ codeName: "UNIMPLEMENTED" });
  await expect(stranger.call("getServerInfo", {})).rejects.toMatchObject({
    codeName: "UNIMPLEMENTED",
  });
});

test("idle connections to the health listener keep no newcomer out", async () => {
  await using running = await sidecarWithHealth();
  const address = near(running.sidecar.healthAddress);
  const watches = Array.from({ length: 32 }, () =>
    read(serverStream(dial(address), Health.method.watch, {})),
  );
  await Promise.all(watches.map((watch) => watch.next()));

  expect(await healthOf(address)).toBe("SERVING");
  await Promise.any(watches.map((watch) => watch.status));
});

test("the ready line tells where health is, and no --insecure is needed for it", async () => {
  await database.addPlugin("demo");
  const ready = await readyLine(serve(database.url, "--health-listen", "0.0.0.0:0"));

  expect(ready).toMatchObject({ event: "ready", health: "grpc.health.v1" });
  expect(ready.healthAddress).toMatch(/^0\.0\.0\.0:\d+$/);
  expect(await healthOf(near(ready.healthAddress))).toBe("SERVING");
});

test("a sidecar whose database is away lives, and doesn't serve", async () => {
  const address = `unix://${directory}/health.sock`;
  serve("postgres://nobody@127.0.0.1:1/none", "--health-listen", address);

  const alive = () => healthOf(address, livenessService).catch(() => "no answer");
  await expect.poll(alive, { timeout: 30_000 }).toBe("SERVING");
  expect(await healthOf(address)).toBe("NOT_SERVING");
});

test("a draining sidecar is seen to live until its last call has ended", async () => {
  await database.addPlugin("demo");
  const address = `unix://${directory}/health.sock`;
  const child = serve(database.url, "--health-listen", address);
  const ready = await readyLine(child);
  using client = new TestClient(ready.bindings[0]!.address);
  await client.call("set", { ...name, valueJson: "0" });
  const exit = once(child, "exit");

  const held = await holdWrites(database);
  const inFlight = client.call("set", { ...name, valueJson: "1" });
  await held.areWaiting(1);
  child.kill("SIGTERM");

  await expect.poll(() => healthOf(address)).toBe("NOT_SERVING");
  expect(await healthOf(address, livenessService)).toBe("SERVING");

  await held.release();
  await inFlight;
  expect(await exit).toEqual([0, null]);
  await expect(healthOf(address)).rejects.toThrow("UNAVAILABLE");
});

test("an address that is taken ends the start with exit code 73, naming the flag", async () => {
  const taken = createServer();
  onTestFinished(() => void taken.close());
  await once(taken.listen(0, "127.0.0.1"), "listening");
  const bound = taken.address();
  const port = typeof bound === "object" ? bound?.port : undefined;

  const child = serve(database.url, "--health-listen", `127.0.0.1:${port}`);
  const exit = once(child, "exit");

  expect(await hostLine(child)).toMatchObject({
    event: "failed",
    reason: "ADDRESS_IN_USE",
    message: expect.stringContaining("--health-listen: "),
    retryable: true,
  });
  expect(await exit).toEqual([73, null]);
});
