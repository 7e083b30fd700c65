import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { failedStart, odd, real, supervise } from "./supervise.ts";

const patient = { timeout: 20_000 };
const write = { scope: { kind: ScopeKind.INSTANCE }, key: "k", valueJson: "1" };

let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
});

afterEach(() => database[Symbol.asyncDispose]());

/** Another program that listens; on a free port without one. */
async function listener(port = 0): Promise<{ server: Server; port: number }> {
  const server = createServer().listen(port, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  return { server, port: typeof address === "object" ? (address?.port ?? 0) : 0 };
}

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "ps-addr-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test("a unix socket is named, private, survives replacements, and is removed at the end", async () => {
  const path = join(scratch(), "new", "demo.sock");
  const { sidecar } = await supervise({
    ...real(database),
    bindings: [{ plugin: "demo", listen: `unix:${path}` }],
  });
  const before = statSync(path, { bigint: true });
  expect(sidecar.bindings).toMatchObject([{ address: `unix://${path}` }]);
  expect(before.mode & 0o777n).toBe(0o600n);

  await sidecar.replace();

  using client = new TestClient(`unix:${path}`);
  await client.call("set", write);
  await sidecar.health.until("SERVING");
  expect(statSync(path, { bigint: true }).ino).toBe(before.ino);
  await sidecar.stop();
  expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
});

test("several plugins have an address each, on IPv6 too", async () => {
  await database.addPlugin("acme.notes");
  const { sidecar } = await supervise({
    ...real(database),
    bindings: [
      { plugin: "demo", listen: "[::1]:0" },
      { plugin: "acme.notes", listen: "localhost:0" },
    ],
  });

  expect(sidecar.bindings).toMatchObject([
    { plugin: "demo", address: expect.stringMatching(/^\[::1\]:[1-9]\d*$/) },
    { plugin: "acme.notes", address: expect.stringMatching(/:[1-9]\d*$/) },
  ]);
  for (const { address } of sidecar.bindings) {
    using client = new TestClient(address);
    await client.call("set", write);
  }
});

test("an address that another program has is a failure worth another try", async () => {
  const { port } = await listener();

  const { error, told } = await failedStart({
    ...odd("ready"),
    bindings: [{ plugin: "demo", listen: `127.0.0.1:${port}` }],
    restart: { initialMs: 1, maxRestarts: 2 },
  });

  expect(error).toMatchObject({ reason: "ADDRESS_IN_USE", retryable: true });
  expect(told.of("started")).toEqual([]);
  expect(told.of("restarting")).toHaveLength(2);
});

test("an address that this machine doesn't have, or isn't allowed, is told", async () => {
  const file = join(scratch(), "file");
  writeFileSync(file, "");
  const { error } = await failedStart({
    ...odd("ready"),
    bindings: [{ plugin: "demo", listen: `unix:${file}/below-no-directory/s` }],
    restart: { maxRestarts: 0 },
  });
  expect(error.retryable).toBe(false);

  const missing = await failedStart({
    ...odd("ready"),
    bindings: [{ plugin: "demo", listen: "192.0.2.1:0" }],
    restart: { maxRestarts: 0 },
  });
  expect(missing.error).toMatchObject({ reason: "CANNOT_LISTEN", retryable: true });
});

test.each([true, false])(
  "a free port that is taken during a long wait becomes another (holdSockets %s)",
  async (holdSockets) => {
    const { sidecar, told } = await supervise({
      ...real(database),
      holdSockets,
      holdMs: 0,
      restart: { initialMs: 300, maxMs: 300, jitter: 0 },
    });
    const { address } = sidecar.bindings[0]!;
    process.kill(sidecar.pid!, "SIGKILL");
    await expect.poll(() => told.of("restarting").length, patient).toBe(1);

    // The wait is longer than clients are to be kept: the address is free.
    await listener(Number(address.split(":")[1]));

    await expect.poll(() => told.of("ready").length, patient).toBe(2);
    const now = sidecar.bindings[0]!.address;
    expect(now).not.toBe(address);
    expect(told.of("addresses_changed")).toEqual([
      { type: "addresses_changed", from: [address], to: [now] },
    ]);
    using client = new TestClient(now);
    await client.call("set", write);
  },
);

test("the address of a sidecar that is given up refuses connections", async () => {
  const { server, port } = await listener();
  server.close();
  await once(server, "close");
  await failedStart({
    ...odd("fails for good"),
    bindings: [{ plugin: "demo", listen: `127.0.0.1:${port}` }],
  });

  // It can be bound again, should another test have got it meanwhile: soon.
  const again = await vi.waitFor(() => listener(port), { timeout: 10_000 });
  expect(again.port).toBe(port);
});

test("a configuration file's bindings get the sockets that were opened for them", async () => {
  const { told } = await supervise({
    command: odd("ready and tells").command!,
    config: "/etc/plugin-state.yaml",
    sockets: ["127.0.0.1:0", "127.0.0.1:0"],
  });
  await expect.poll(() => told.log.length, patient).toBe(1);

  expect(JSON.parse(told.log[0]!)).toMatchObject({
    argv: ["--config", "/etc/plugin-state.yaml", "--exit-with-parent"],
    sockets: [3, 4],
  });
});
