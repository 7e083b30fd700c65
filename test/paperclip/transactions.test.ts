import { describe, expect, onTestFinished, test } from "vitest";
import { entriesOf, expectCountsOfRows, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import type { Isolation } from "./host-packages.ts";
import { startLoad } from "./load.ts";
import { AttachedSidecar, attach, problemsOf } from "./sidecar.ts";
import { Tally } from "./tally.ts";

/** How long a call may take beside a transaction that it has nothing to do with. */
const soon = { deadlineMs: 3_000 };

/** A host's database, attached, whose plugins are served under load. */
interface Scene {
  readonly database: HostDatabase;
  readonly pluginIds: readonly string[];
  readonly sidecar: AttachedSidecar;
}

describe.each([
  // Serializable transactions can fail because of each other: one after the other they have no reason to.
  { isolation: "serializable", clients: 1, each: 400 },
  { isolation: "repeatable read", clients: 4, each: 150 },
  { isolation: "read committed", clients: 4, each: 150 },
] satisfies { isolation: Isolation; clients: number; each: number }[])(
  "transactions of the host, $isolation",
  ({ isolation, clients, each }) => {
    test("none fails beside a sidecar that writes and reads other entries of the plugin", async () => {
      const { database, pluginIds, sidecar } = await scene(["demo"]);
      const load = startLoad(sidecar.client);

      const failures = await Promise.all(
        Array.from({ length: clients }, (_, client) =>
          upsertAndDelete(database, pluginIds[0]!, isolation, client, each),
        ),
      );

      expect(failures.flat()).toEqual([]);
      const { calls, failures: failedCalls } = await load.stop();
      expect(failedCalls).toEqual([]);
      expect(calls).toBeGreaterThan(each);
      await expectCountsOfRows(database, sidecar.client, pluginIds[0]!);
    });
  },
);

test("a prepared transaction holds up no other entry, and its writes are there once it is committed", async () => {
  const { database, pluginIds, sidecar } = await scene(["demo"]);
  const { revision } = await sidecar.client.call("set", {
    scope: instance,
    key: "a",
    valueJson: "1",
  });

  await database.session(async (client) => {
    await client.query("begin");
    await client.query(
      `insert into plugin_state (plugin_id, scope_kind, state_key, value_json)
       values ($1, 'instance', 'prepared', '1')`,
      [pluginIds[0]],
    );
    await client.query("delete from plugin_state where state_key = 'none'");
    await client.query(`prepare transaction '${database.name}'`);
  });
  await writeAndReadOthers(sidecar);
  await database.query(`commit prepared '${database.name}'`);

  const { entry } = await sidecar.client.call("get", { scope: instance, key: "prepared" });
  expect(entry!.revision).toBeGreaterThan(revision);
  await expectCountsOfRows(database, sidecar.client, pluginIds[0]!);
});

test("a transaction that stays open holds up no other entry, whatever it wrote", async () => {
  const { database, pluginIds, sidecar } = await scene(["demo"]);
  await database.store().set(pluginIds[0]!, { scopeKind: "instance", stateKey: "gone", value: 1 });

  await database.session(async (client) => {
    await client.query("begin isolation level repeatable read");
    await client.query(
      `insert into plugin_state (plugin_id, scope_kind, state_key, value_json)
       select $1, 'instance', 'held-' || n, '1' from generate_series(1, 500) n`,
      [pluginIds[0]],
    );
    await client.query("delete from plugin_state where state_key = 'gone'");
    await writeAndReadOthers(sidecar);
    await client.query("commit");
  });

  const entries = await entriesOf(sidecar.client);
  expect(entries).not.toContainEqual(expect.objectContaining({ key: "gone" }));
  expect(entries).toContainEqual(expect.objectContaining({ key: "held-500", valueJson: "1" }));
  await expectCountsOfRows(database, sidecar.client, pluginIds[0]!);
});

test("a transaction that is rolled back leaves no revision and no count", async () => {
  const { database, pluginIds, sidecar } = await scene(["demo"]);
  const { revision } = await sidecar.client.call("set", {
    scope: instance,
    key: "a",
    valueJson: "1",
  });

  await database.session(async (client) => {
    await client.query("begin");
    await client.query("update plugin_state set value_json = '2'");
    await client.query("savepoint s");
    await client.query("delete from plugin_state");
    await client.query("rollback to s");
    await client.query("rollback");
  });

  expect(await entriesOf(sidecar.client)).toMatchObject([{ key: "a", valueJson: "1", revision }]);
  const set = await sidecar.client.call("set", { scope: instance, key: "b", valueJson: "1" });
  expect(set.revision).toBe(revision + 1n);
  await expectCountsOfRows(database, sidecar.client, pluginIds[0]!);
});

test("twelve clients write two plugins in opposite orders, and none is in another's way", async () => {
  const { database, pluginIds, sidecar } = await scene(["demo", "other"]);
  const loads = [...sidecar.clients.values()].map((client) => startLoad(client, 2));

  const failures = await Promise.all(
    Array.from({ length: 12 }, async (_, client) => {
      const db = database.connect();
      const order = client % 2 === 0 ? pluginIds : [...pluginIds].reverse();
      return await failuresOf(50, (n) =>
        db.transaction(async (transaction) => {
          for (const pluginId of order) {
            await database.host.storeOf(transaction).set(pluginId, {
              ...{ scopeKind: "run", scopeId: `client-${client}`, stateKey: `key-${n % 10}` },
              value: n,
            });
          }
        }),
      );
    }),
  );

  expect(failures.flat()).toEqual([]);
  for (const load of loads) expect((await load.stop()).failures).toEqual([]);
  for (const [index, client] of [...sidecar.clients.values()].entries()) {
    await expectCountsOfRows(database, client, pluginIds[index]!);
  }
});

test("entries that are given to another plugin leave one's counts and come to the other's", async () => {
  const { database, pluginIds, sidecar } = await scene(["demo", "other"]);
  const [from, to] = [...sidecar.clients.values()];
  for (const key of ["a", "b", "c"]) {
    await from!.call("set", { scope: instance, key, valueJson: `"${key}"` });
  }
  const { revision } = await to!.call("set", { scope: instance, key: "own", valueJson: "1" });

  await database.query(
    "update plugin_state set plugin_id = $2 where plugin_id = $1 and state_key < 'c'",
    [...pluginIds],
  );

  expect(await entriesOf(from!)).toMatchObject([{ key: "c" }]);
  expect(await entriesOf(to!)).toMatchObject([
    { key: "a", revision: expect.any(BigInt) },
    { key: "b", valueJson: '"b"' },
    { key: "own", revision },
  ]);
  const revisions = (await to!.call("list", { scope: instance })).entries.map(
    (one) => one.revision,
  );
  expect(new Set(revisions).size).toBe(3);
  await expectCountsOfRows(database, from!, pluginIds[0]!);
  await expectCountsOfRows(database, to!, pluginIds[1]!);
  expect(await problemsOf(database)).toEqual([]);
});

async function scene(plugins: readonly string[]): Promise<Scene> {
  const database = await HostDatabase.create();
  onTestFinished(() => database[Symbol.asyncDispose]());
  const pluginIds: string[] = [];
  for (const key of plugins) pluginIds.push(await database.addPlugin(key));
  await attach(database);
  const sidecar = await AttachedSidecar.start(database, plugins);
  onTestFinished(() => sidecar.stop());
  return { database, pluginIds, sidecar };
}

/** Transactions of one client of the host, each with an upsert and a delete of entries of its own. */
async function upsertAndDelete(
  database: HostDatabase,
  pluginId: string,
  isolationLevel: Isolation,
  client: number,
  times: number,
): Promise<string[]> {
  const db = database.connect();
  const place = { scopeKind: "run", scopeId: `client-${client}` };
  return await failuresOf(times, (n) =>
    db.transaction(
      async (transaction) => {
        const store = database.host.storeOf(transaction);
        await store.set(pluginId, { ...place, stateKey: `key-${n % 10}`, value: { n } });
        await store.delete(pluginId, "run", `key-${(n + 5) % 10}`, { scopeId: place.scopeId });
      },
      { isolationLevel },
    ),
  );
}

/** What went wrong of so many, one after the other. */
async function failuresOf(times: number, work: (n: number) => Promise<void>): Promise<string[]> {
  const failures = new Tally();
  for (let n = 0; n < times; n++) await work(n).catch((error) => failures.add(error));
  return failures.list();
}

/** Everything a worker does, with other entries than those that somebody holds. */
async function writeAndReadOthers({ client }: AttachedSidecar): Promise<void> {
  const mine = { scope: instance, key: "mine" };
  for (const valueJson of ["1", "2"]) await client.call("set", { ...mine, valueJson }, soon);
  const change = { case: "increment" as const, value: {} };
  await client.call("update", { ...mine, change }, soon);
  const { entry } = await client.call("get", mine, soon);
  expect(entry).toMatchObject({ valueJson: "3" });
  await client.call("list", { scope: instance }, soon);
  await client.call("listScopes", {}, soon);
  const { existed } = await client.call("delete", mine, soon);
  expect(existed).toBe(true);
}
