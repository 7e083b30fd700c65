import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { expectCounted, settle } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterAll(() => database[Symbol.asyncDispose]());

const scope = { kind: ScopeKind.RUN, id: "r" };

/** Entries of a plugin, by plain SQL. */
const insert = (plugin: string, count: number, prefix = "k") =>
  database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
     select $1, 'run', 'r', $3 || n, '1' from generate_series(1, $2::int) n`,
    [plugin, count, prefix],
  );
const remove = (plugin: string) =>
  database.query("delete from plugin_sidecar.plugins where id = $1", [plugin]);
const register = (plugin: string, key: string) =>
  database.query(
    `insert into plugin_sidecar.plugins (id, plugin_key, package_name, version, manifest_json)
     values ($1, $2, $2, '1.0.0', '{}')`,
    [plugin, key],
  );

/** Rows that are kept for a plugin. */
async function keptOf(plugin: string): Promise<number> {
  const tables = [
    "plugin_revisions",
    "external_writes",
    "external_revisions",
    "requests",
    "batches",
  ];
  const counts = tables.map((table) => `select from plugin_sidecar.${table} where plugin_id = $1`);
  return (await database.query(counts.join(" union all "), [plugin])).length;
}

test("external writes of a plugin that nobody serves get their revisions from any sidecar's sweep", async () => {
  await using _ = await testSidecar(database, ["demo"], { sweepIntervalMs: 20 });
  const plugin = await database.addPlugin("unserved");
  await insert(plugin, 10);
  await expect
    .poll(() =>
      database.query(
        "select revision, entries from plugin_sidecar.plugin_revisions where plugin_id = $1",
        [plugin],
      ),
    )
    .toEqual([{ revision: "10", entries: "10" }]);
  expect(
    await database.query("select from plugin_sidecar.external_writes where plugin_id = $1", [
      plugin,
    ]),
  ).toEqual([]);
  await expectCounted(database, plugin);
});

test("a sweep takes no counter of a plugin that has no external writes", async () => {
  const plugin = await database.addPlugin("quiet");
  await insert(plugin, 1);
  await settle(database, plugin);
  const holder = new pg.Client(database.connection);
  await holder.connect();
  onTestFinished(() => holder.end());
  await holder.query("begin; select from plugin_sidecar.plugin_revisions for update");
  const settled = await database.query(
    "select is_registered, more from plugin_sidecar.settle_external_writes($1, true)",
    [plugin],
  );
  expect(settled).toEqual([{ is_registered: true, more: false }]);
});

describe("what is kept for a plugin that is gone", () => {
  test("goes with a sweep, however much it is, and of no other plugin", async () => {
    const plugin = await database.addPlugin("gone");
    const other = await database.addPlugin("stays");
    for (const id of [plugin, other]) {
      await insert(id, 2_000);
      await expectCounted(database, id);
      await database.query(
        `insert into plugin_sidecar.requests (plugin_id, request_id, fingerprint, outcome, revision, result, expires_at)
         select $1, gen_random_uuid(), '', '{}', '{}', '{}', now() + interval '1 day' from generate_series(1, 1500)`,
        [id],
      );
      await database.query(
        "insert into plugin_sidecar.batches (plugin_id, lane, batch, ended_at) values ($1, $2, 1, now())",
        [id, randomUUID()],
      );
    }
    const before = await keptOf(other);
    await remove(plugin);
    await using _ = await testSidecar(database, ["demo"], { sweepIntervalMs: 20 });
    await expect.poll(() => keptOf(plugin), { timeout: 15_000 }).toBe(0);
    expect(await keptOf(other)).toBe(before);
  });

  test("also goes when it never had a counter", async () => {
    const plugin = await database.addPlugin("never counted");
    await insert(plugin, 10);
    await remove(plugin);
    await using _ = await testSidecar(database, ["demo"], { sweepIntervalMs: 20 });
    await expect.poll(() => keptOf(plugin)).toBe(0);
  });

  test.each([0, 1, 2, 3, 5, 8])(
    "is right when the plugin is registered again after %i steps of forgetting it",
    async (steps) => {
      const key = `again ${steps}`;
      const plugin = await database.addPlugin(key);
      await insert(plugin, 300);
      await expectCounted(database, plugin);
      await insert(plugin, 100, "l");
      await remove(plugin);
      for (let step = 0; step < steps; step++) {
        await database.query("select plugin_sidecar.forget_plugin($1, 2)", [plugin]);
      }
      await register(plugin, key);
      await insert(plugin, 7);
      expect(await expectCounted(database, plugin)).toMatchObject({ entries: 7 });
      await using again = await testSidecar(database, [key]);
      const { entries } = await again.client.call("list", { scope });
      expect(entries).toHaveLength(7);
    },
  );
});
