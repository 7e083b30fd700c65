import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  Health,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../src/gen/health/v1/health_pb.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { dial, read, serverStream } from "./rpc/peers.ts";
import { failure, TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { type HostLine, readyLine } from "./support/host-line.ts";
import { FaultProxy } from "./support/proxy.ts";

const first = "first-token-0123456789";
const second = "second-token-0123456789";
const service = "pluginstate.v1.PluginStateService";
const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;
let directory: string;
let file: string;
const children: ChildProcess[] = [];
const clients: TestClient[] = [];

beforeEach(async () => {
  database = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  file = join(directory, "bindings.yaml");
});

afterEach(async () => {
  for (const client of clients.splice(0)) client[Symbol.dispose]();
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }
  rmSync(directory, { recursive: true });
  await database[Symbol.asyncDispose]();
});

interface Entry {
  readonly plugin: string;
  readonly [field: string]: unknown;
}

/** A unix socket for each plugin, so that addresses are known. */
function socketOf(plugin: string): string {
  return `unix:${join(directory, `${plugin}.sock`)}`;
}

function configure(...entries: readonly Entry[]): void {
  const bindings = entries.map((entry) => ({ listen: socketOf(entry.plugin), ...entry }));
  writeFileSync(file, JSON.stringify({ bindings }));
}

function clientOf(plugin: string): TestClient {
  const client = new TestClient(socketOf(plugin));
  clients.push(client);
  return client;
}

interface Starting {
  readonly child: ChildProcess;
  /** The lines it wrote on stderr. */
  readonly log: string[];
  /** Sends SIGHUP and waits until its outcome is logged. */
  reload(): Promise<Record<string, unknown>>;
}

interface Serving extends Starting {
  readonly ready: HostLine;
}

async function serve(...flags: string[]): Promise<Serving> {
  return await serveThrough(database.url, ...flags);
}

async function serveThrough(databaseUrl: string, ...flags: string[]): Promise<Serving> {
  const starting = start(databaseUrl, ...flags);
  return { ...starting, ready: await readyLine(starting.child) };
}

function start(databaseUrl: string, ...flags: string[]): Starting {
  const child = spawn(process.execPath, ["dist/main.js", "serve", "--config", file, ...flags], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...database.environment, DATABASE_URL: databaseUrl },
  });
  children.push(child);
  const outcomes: Record<string, unknown>[] = [];
  const log: string[] = [];
  createInterface({ input: child.stderr! }).on("line", (line) => {
    log.push(line);
    const logged: Record<string, unknown> = JSON.parse(line);
    if (/read the configuration again|can't reload/.test(String(logged["msg"]))) {
      outcomes.push(logged);
    }
  });
  return {
    child,
    log,
    reload: async () => {
      child.kill("SIGHUP");
      return await vi.waitFor(() => outcomes.shift() ?? Promise.reject(new Error("no outcome")), {
        timeout: 20_000,
      });
    },
  };
}

test("SIGHUP adds and removes bindings, while another's connection and calls go on", async () => {
  for (const plugin of ["a", "b", "c"]) await database.addPlugin(plugin);
  configure({ plugin: "a" }, { plugin: "b" });
  const { ready, reload } = await serve();
  expect(ready.bindings).toHaveLength(2);
  const a = clientOf("a");
  let isOver = false;
  const calls = (async () => {
    let made = 0;
    for (; !isOver; made++) await a.call("set", { ...name, valueJson: String(made) });
    return made;
  })();
  await clientOf("b").call("set", { ...name, valueJson: '"b"' });

  configure({ plugin: "a" }, { plugin: "c" });
  expect(await reload()).toMatchObject({ added: 1, removed: 1, changed: 0, failed: 0 });

  await clientOf("c").call("set", { ...name, valueJson: '"c"' });
  expect((await failure(clientOf("b").call("get", name, { deadlineMs: 2_000 }))).codeName).toBe(
    "UNAVAILABLE",
  );
  isOver = true;
  expect(await calls).toBeGreaterThan(0);
});

test("a call in flight on a binding that is removed is answered, even if the process is told to stop then", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a" }, { plugin: "b" });
  const { child, reload } = await serve();
  const held = await holdWrites(database);
  const write = clientOf("b").call("set", { ...name, valueJson: '"late"' });
  await held.areWaiting(1);

  configure({ plugin: "a" });
  expect(await reload()).toMatchObject({ removed: 1, failed: 0 });
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  // A is drained by then; b is waited for.
  await expect.poll(() => existsSync(socketOf("a").slice("unix:".length))).toBe(false);
  expect(child.exitCode).toBeNull();
  await held.release();

  expect(await write).toMatchObject({ created: true });
  expect((await ended)[0]).toBe(0);
});

test("a binding that comes back finds its state", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a" }, { plugin: "b" });
  const { reload } = await serve();
  await clientOf("b").call("set", { ...name, valueJson: '"kept"' });

  configure({ plugin: "a" });
  await reload();
  configure({ plugin: "a" }, { plugin: "b" });
  await reload();

  expect((await clientOf("b").call("get", name)).entry?.valueJson).toBe('"kept"');
});

test("tokens, capabilities, scopes and quotas change on open connections", async () => {
  await database.addPlugin("a");
  const tokenFile = join(directory, "token");
  writeFileSync(tokenFile, first);
  configure({ plugin: "a", token_file: "token" });
  const { reload } = await serve();
  const client = clientOf("a");
  const authorized = { authorization: `Bearer ${first}` };
  await client.call("set", { ...name, valueJson: "1" }, authorized);

  writeFileSync(tokenFile, `${first}\n${second}`);
  const restricted = {
    plugin: "a",
    token_file: "token",
    capabilities: ["plugin.state.write"],
    scopes: ["instance"],
    quota_entries: 1,
  };
  configure(restricted);
  expect(await reload()).toMatchObject({
    ...{ added: 0, removed: 0, changed: 0, failed: 0 },
    updated: 1,
  });
  expect(await reload()).toMatchObject({ updated: 0 });

  const other = { ...name, key: "other", valueJson: "2" };
  expect((await failure(client.call("get", name, authorized))).reason).toBe("CAPABILITY_DENIED");
  expect((await failure(client.call("set", other, authorized))).reason).toBe("QUOTA_EXCEEDED");
  await client.call("set", { ...name, valueJson: "3" }, { authorization: `Bearer ${second}` });
});

test("a demand for a token closes the door that was open", async () => {
  await database.addPlugin("a");
  configure({ plugin: "a" });
  const { reload } = await serve();
  await clientOf("a").call("get", name);

  writeFileSync(join(directory, "token"), first);
  configure({ plugin: "a", token_file: "token" });
  expect(await reload()).toMatchObject({ changed: 1 });

  expect((await failure(clientOf("a").call("get", name))).codeName).toBe("UNAUTHENTICATED");
  await clientOf("a").call("get", name, { authorization: `Bearer ${first}` });
});

test("another plugin on the same address is another binding: nothing of the first is to be seen", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a", listen: socketOf("x") });
  const { reload } = await serve();
  await clientOf("x").call("set", { ...name, valueJson: '"of a"' });

  configure({ plugin: "b", listen: socketOf("x") });
  expect(await reload()).toMatchObject({ changed: 1, added: 0, removed: 0 });

  expect((await clientOf("x").call("get", name)).entry).toBeUndefined();
});

test("a file that is wrong changes nothing", async () => {
  await database.addPlugin("a");
  configure({ plugin: "a" });
  const { reload } = await serve();

  writeFileSync(file, "bindings: [{ plugin: a, lisden: x }]");
  expect(await reload()).toMatchObject({ level: "error" });

  await clientOf("a").call("get", name);
});

test("one binding that can't be served doesn't keep the others from it", async () => {
  for (const plugin of ["a", "b", "c"]) await database.addPlugin(plugin);
  configure({ plugin: "a" });
  const { child, reload } = await serve();
  const inTheWay = join(directory, "c.sock");
  writeFileSync(inTheWay, "not a socket");

  configure({ plugin: "a" }, { plugin: "c" }, { plugin: "b" });
  expect(await reload()).toMatchObject({ added: 1, failed: 1 });
  await clientOf("a").call("get", name);
  await clientOf("b").call("get", name);

  rmSync(inTheWay);
  expect(await reload()).toMatchObject({ added: 1, failed: 0 });
  await clientOf("c").call("get", name);
  child.kill("SIGTERM");
  expect((await once(child, "exit"))[0]).toBe(0);
});

test("a plugin that isn't registered is added all the same, and served as soon as it is", async () => {
  await database.addPlugin("a");
  configure({ plugin: "a" });
  const { reload } = await serve();

  configure({ plugin: "a" }, { plugin: "later" });
  expect(await reload()).toMatchObject({ added: 1, failed: 0 });
  const later = clientOf("later");
  expect((await failure(later.call("get", name))).reason).toBe("PLUGIN_NOT_REGISTERED");
  expect(await healthOf(socketOf("later"), service)).toBe("NOT_SERVING");
  expect(await healthOf(socketOf("a"), service)).toBe("SERVING");

  await database.addPlugin("later");
  await later.call("set", { ...name, valueJson: "1" });
  await expect.poll(() => healthOf(socketOf("a"), "plugin/later")).toBe("SERVING");
});

test("a binding that is removed has no health any more, and whoever watches it is told", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a" }, { plugin: "b" });
  const { reload } = await serve();
  const watch = read(serverStream(dial(socketOf("b")), Health.method.watch, { service }));
  expect(await watch.next()).toMatchObject({ status: ServingStatus.SERVING });

  configure({ plugin: "a" });
  await reload();

  expect(await watch.next()).toMatchObject({ status: ServingStatus.NOT_SERVING });
  expect(await watch.status).toBe(0);
  await expect(healthOf(socketOf("a"), "plugin/b")).rejects.toThrow("no such service");
});

test("reloads that fail, for whatever reason, change nothing, and the next one works", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a" });
  const { reload } = await serve();
  const a = clientOf("a");
  const failing: readonly (() => void)[] = [
    () => writeFileSync(file, "bindings: ["),
    () => writeFileSync(file, "bindings: [{ plugin: a }]"),
    () => rmSync(file),
    () => mkdirSync(file),
    () => {
      rmSync(file, { recursive: true });
      configure({ plugin: "a", token_env: "NO_SUCH_VARIABLE" });
    },
  ];
  for (const fail of failing) {
    fail();
    expect(await reload()).toMatchObject({
      level: "error",
      msg: expect.stringMatching("can't reload"),
    });
    await a.call("get", name);
  }

  configure({ plugin: "a" }, { plugin: "b" });
  expect(await reload()).toMatchObject({ added: 1, failed: 0 });
  await clientOf("b").call("get", name);
});

test("a binding that can't be as it is to be stays as it was, wherever it was to go", async () => {
  await database.addPlugin("a");
  configure({ plugin: "a" });
  const { reload } = await serve();
  const a = clientOf("a");
  const taken = join(directory, "taken");
  writeFileSync(taken, "not a socket");
  writeFileSync(join(directory, "empty"), "");
  const impossible: readonly Record<string, unknown>[] = [
    { listen: `unix:${taken}` },
    { token_file: "missing" },
    { token_file: "empty" },
    { tls: { cert_file: "missing.crt", key_file: "missing.key" } },
    { listen: `unix:${join(directory, "other.sock")}`, token_file: "missing" },
  ];
  for (const change of impossible) {
    configure({ plugin: "a", ...change });
    expect(await reload(), JSON.stringify(change)).toMatchObject({ failed: 1, removed: 0 });
    await a.call("get", name);
    await clientOf("a").call("get", name);
  }

  configure({ plugin: "a", listen: socketOf("other") });
  expect(await reload()).toMatchObject({ changed: 1, failed: 0 });
  await clientOf("other").call("get", name);
});

test("an address that another program has at the last moment leaves the binding where it was", async () => {
  await database.addPlugin("a");
  const other = createServer().listen(0, "127.0.0.2");
  await once(other, "listening");
  const { port } = other.address() as AddressInfo;
  configure({ plugin: "a", listen: `127.0.0.1:${port}` });
  const { reload } = await serve("--insecure");
  const a = new TestClient(`127.0.0.1:${port}`);
  clients.push(a);
  await a.call("get", name);

  configure({ plugin: "a", listen: `0.0.0.0:${port}` });
  expect(await reload()).toMatchObject({ failed: 1, changed: 0 });
  await a.call("get", name);
  const newcomer = new TestClient(`127.0.0.1:${port}`);
  clients.push(newcomer);
  await newcomer.call("get", name);

  other.close();
  await once(other, "close");
  expect(await reload()).toMatchObject({ failed: 0, changed: 1 });
  await newcomer.call("get", name);
});

test("while the database is away a reload does what it can, and what it added serves when that is back", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  await using proxy = await FaultProxy.before(database.url);
  configure({ plugin: "a" });
  const { reload } = await serveThrough(proxy.through(database.url));
  await proxy.close();

  configure({ plugin: "a" }, { plugin: "b" });
  expect(await reload()).toMatchObject({ added: 1, failed: 0 });
  const b = clientOf("b");
  expect((await failure(b.call("get", name))).reason).toBe("DATABASE_UNAVAILABLE");

  await proxy.open();
  await expect.poll(() => healthOf(socketOf("b"), service), { timeout: 20_000 }).toBe("SERVING");
  await b.call("set", { ...name, valueJson: "1" });
});

test("SIGHUP during the start counts as soon as the start is over", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  await using proxy = await FaultProxy.before(database.url);
  const through = proxy.through(database.url);
  await proxy.close();
  configure({ plugin: "a" });
  const starting = start(through);
  await expect.poll(() => starting.log.join(), { timeout: 20_000 }).toContain("waiting for the");

  configure({ plugin: "a" }, { plugin: "b" });
  const outcome = starting.reload();
  await proxy.open();

  expect(await outcome).toMatchObject({ added: 1, failed: 0 });
  await clientOf("b").call("get", name);
});

test("SIGTERM in the middle of many reloads ends it with 0, and leaves no address behind", async () => {
  for (const plugin of ["a", "b"]) await database.addPlugin(plugin);
  configure({ plugin: "a" });
  const { child, reload } = await serve();
  await reload();
  for (let round = 0; round < 20; round++) {
    configure({ plugin: "a" }, ...(round % 2 === 0 ? [{ plugin: "b" }] : []));
    child.kill("SIGHUP");
    await sleep(5);
  }
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  expect(await ended).toEqual([0, null]);
  for (const plugin of ["a", "b"]) {
    expect(existsSync(socketOf(plugin).slice("unix:".length))).toBe(false);
  }
});

test("50 plugins in one process share 3 connections, and none sees another's state", async () => {
  const plugins = Array.from({ length: 50 }, (_, index) => `p${index}`);
  for (const plugin of plugins) await database.addPlugin(plugin);
  configure(...plugins.map((plugin) => ({ plugin })));
  await serve();

  await Promise.all(
    plugins.map(async (plugin) => {
      const client = clientOf(plugin);
      await Promise.all(
        Array.from({ length: 20 }, (_, index) =>
          client.call("set", { ...name, key: `k${index}`, valueJson: JSON.stringify(plugin) }),
        ),
      );
      const { entries } = await client.call("list", { scope: name.scope });
      expect(entries).toHaveLength(20);
      for (const { valueJson } of entries) expect(valueJson).toBe(JSON.stringify(plugin));
    }),
  );

  const [row] = await database.query<{ count: number }>(
    `select count(*)::int from pg_stat_activity
      where datname = current_database() and application_name = 'plugin-state-sidecar'`,
  );
  expect(row!.count).toBeLessThanOrEqual(3);
});
