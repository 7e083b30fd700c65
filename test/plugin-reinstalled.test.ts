import { afterEach, beforeEach, expect, test } from "vitest";
import type { ServeConfig } from "../src/config/config.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { type Sidecar, startSidecar } from "../src/server.ts";
import { CallError, failure, TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { configFor } from "./support/sidecar.ts";

const scope = { kind: ScopeKind.INSTANCE };
const name = { scope, key: "k" };
const service = "pluginstate.v1.PluginStateService";
/** "Within seconds". */
const soon = { timeout: 10_000, interval: 20 };
const notRegistered = { codeName: "FAILED_PRECONDITION", reason: "PLUGIN_NOT_REGISTERED" };

let database: TestDatabase;
let sidecars: Sidecar[];
let clients: TestClient[];

beforeEach(async () => {
  database = await testDatabase();
  sidecars = [];
  clients = [];
});

afterEach(async () => {
  for (const client of clients) client[Symbol.dispose]();
  await Promise.all(sidecars.map((sidecar) => sidecar.stop()));
  await database[Symbol.asyncDispose]();
});

async function serve(plugins: readonly string[], overrides: Partial<ServeConfig> = {}) {
  const config = { ...configFor(database.url, plugins), ...overrides };
  const sidecar = await startSidecar(config, createLog("silent"), new AbortController().signal);
  sidecars.push(sidecar);
  const served = sidecar.bindings.map(({ address }) => ({
    address,
    client: new TestClient(address),
  }));
  clients.push(...served.map(({ client }) => client));
  return { sidecar, bindings: served, client: served[0]!.client, address: served[0]!.address };
}

/** As the host purges a plugin. */
async function purge(key: string): Promise<void> {
  await database.query("delete from plugin_sidecar.plugins where plugin_key = $1", [key]);
}

test("a plugin that is purged and installed anew is found by its key, with the next call, from nothing", async () => {
  const old = await database.addPlugin("demo");
  const { client, sidecar } = await serve(["demo"]);
  await client.call("set", { ...name, valueJson: '"old"' });

  await purge("demo");
  expect(await failure(client.call("set", { ...name, valueJson: "1" }))).toMatchObject(
    notRegistered,
  );
  const id = await database.addPlugin("demo");
  const set = await client.call("set", { ...name, valueJson: '"new"' });

  expect(id).not.toBe(old);
  expect(set).toMatchObject({ created: true, revision: 1n });
  expect((await client.call("get", name)).entry?.valueJson).toBe('"new"');
  expect((await client.call("getServerInfo", {})).plugin).toMatchObject({ id, key: "demo" });
  expect(sidecar.bindings).toMatchObject([{ plugin: "demo", pluginId: id }]);
});

test("it is found by itself within seconds, also if nobody calls, and its entries are swept", async () => {
  await database.addPlugin("demo");
  const { sidecar, client } = await serve(["demo"]);
  await purge("demo");
  const id = await database.addPlugin("demo");

  await expect.poll(() => sidecar.bindings[0]!.pluginId, soon).toBe(id);

  await client.call("set", { ...name, valueJson: "1", ttl: { seconds: 1n } });
  const rows = () => database.query("select from plugin_sidecar.plugin_state");
  await expect.poll(async () => (await rows()).length, soon).toBe(0);
});

test("quotas count for the new one from nothing", async () => {
  await database.addPlugin("demo");
  const config = configFor(database.url, ["demo"]);
  const { client } = await serve(["demo"], { bounds: { ...config.bounds, quotaEntries: 1 } });
  await client.call("set", { ...name, valueJson: "1" });
  await purge("demo");
  await failure(client.call("get", name));
  await database.addPlugin("demo");

  await client.call("set", { ...name, valueJson: "2" });

  const another = client.call("set", { scope, key: "another", valueJson: "3" });
  expect((await failure(another)).reason).toBe("QUOTA_EXCEEDED");
});

test("a binding by UUID stays with that UUID, whoever has the key", async () => {
  const id = await database.addPlugin("demo");
  const { client, address, sidecar } = await serve([id]);
  expect(sidecar.bindings).toMatchObject([{ plugin: "demo", pluginId: id }]);
  await purge("demo");
  await database.addPlugin("demo");

  await expect.poll(() => healthOf(address, service), soon).toBe("NOT_SERVING");

  expect(await failure(client.call("get", name))).toMatchObject({
    ...notRegistered,
    metadata: { plugin: id },
  });
});

test("a key that is renamed is another's; its UUID is still the plugin's", async () => {
  const id = await database.addPlugin("demo");
  const { bindings, sidecar } = await serve(["demo", id]);
  const [byKey, byId] = bindings;
  await byKey!.client.call("set", { ...name, valueJson: "1" });
  await database.query("update plugin_sidecar.plugins set plugin_key = 'renamed' where id = $1", [
    id,
  ]);

  await expect.poll(() => healthOf(byKey!.address, service), soon).toBe("NOT_SERVING");

  expect(await failure(byKey!.client.call("get", name))).toMatchObject(notRegistered);
  expect((await byId!.client.call("get", name)).entry?.valueJson).toBe("1");
  expect(await healthOf(byId!.address, service)).toBe("SERVING");
  expect((await byId!.client.call("getServerInfo", {})).plugin).toMatchObject({
    id,
    key: "renamed",
  });
  expect(sidecar.bindings[1]).toMatchObject({ plugin: "renamed", pluginId: id });
});

test("two bindings of one plugin go and come back together", async () => {
  await database.addPlugin("demo");
  const { bindings, address } = await serve(["demo", "demo"]);
  await purge("demo");
  for (const { client } of bindings) {
    expect(await failure(client.call("get", name))).toMatchObject(notRegistered);
  }
  await expect.poll(() => healthOf(address, "plugin/demo"), soon).toBe("NOT_SERVING");
  await database.addPlugin("demo");

  await bindings[0]!.client.call("set", { ...name, valueJson: "1" });
  expect((await bindings[1]!.client.call("get", name)).entry?.valueJson).toBe("1");
});

test("under load, each call succeeds or says that it isn't registered, over reinstallations", async () => {
  await database.addPlugin("demo");
  const { client } = await serve(["demo"]);
  const answers = new Map<string, number>();
  let isOver = false;
  const rows = Array.from({ length: 16 }, async (_, row) => {
    for (let n = 0; !isOver; n++) {
      const entry = { scope, key: `k${(n + row) % 5}` };
      const call =
        n % 3 === 0 ? client.call("get", entry) : client.call("set", { ...entry, valueJson: "1" });
      const answer = await call.then(() => "OK", describeError);
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
    }
  });
  const more = async (answer: string, count: number) => {
    const before = answers.get(answer) ?? 0;
    await expect.poll(() => (answers.get(answer) ?? 0) - before, soon).toBeGreaterThan(count);
  };
  const refused = "FAILED_PRECONDITION PLUGIN_NOT_REGISTERED";
  try {
    for (let round = 0; round < 3; round++) {
      await more("OK", 50);
      await purge("demo");
      await more(refused, 20);
      await database.addPlugin("demo");
    }
    await more("OK", 50);
  } finally {
    isOver = true;
    await Promise.all(rows);
  }
  expect([...answers.keys()].sort()).toEqual([refused, "OK"].sort());
});

test("a purge during a drain leaves no call without an answer", async () => {
  await database.addPlugin("demo");
  const { client, sidecar } = await serve(["demo"]);
  await client.call("set", { ...name, valueJson: "0" });
  const held = await holdWrites(database);
  const inFlight = client.call("set", { ...name, valueJson: "1" }).then(() => "OK", describeError);
  await held.areWaiting(1);
  const stopped = sidecar.stop();
  const purged = purge("demo");
  await held.release();
  expect(["OK", "FAILED_PRECONDITION PLUGIN_NOT_REGISTERED"]).toContain(await inFlight);
  await Promise.all([stopped, purged]);
});

test("calls for a plugin that was never registered fail at once, GetServerInfo too, and say which", async () => {
  const { client, address, sidecar } = await serve(["acme.later"]);
  expect(sidecar.bindings).toMatchObject([{ plugin: "acme.later", pluginId: null }]);
  expect(await healthOf(address)).toBe("NOT_SERVING");
  const calls = [
    client.call("get", name, { deadlineMs: 4_000 }),
    client.call("set", { ...name, valueJson: "1" }, { deadlineMs: 4_000 }),
    client.call("list", { scope }, { deadlineMs: 4_000 }),
    client.call("getServerInfo", {}, { deadlineMs: 4_000 }),
  ];
  for (const error of await Promise.all(calls.map(failure))) {
    expect(error).toMatchObject({ ...notRegistered, metadata: { plugin: "acme.later" } });
  }
});

function describeError(error: unknown): string {
  return error instanceof CallError ? `${error.codeName} ${error.reason}` : String(error);
}
