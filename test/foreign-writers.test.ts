import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type ForeignWriter, foreignWriter } from "./support/foreign-writer.ts";
import { type Name, readPages } from "./support/model.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let sidecar: TestSidecar;
let client: TestClient;
let pluginId: string;
let pool: pg.Pool;
let host: ForeignWriter;

beforeAll(async () => {
  database = await testDatabase();
  sidecar = await testSidecar(database);
  client = sidecar.client;
  pluginId = sidecar.sidecar.bindings[0]!.pluginId;
  pool = new pg.Pool(database.connection);
  pool.on("error", () => undefined);
  host = foreignWriter(pool.query.bind(pool), pluginId);
});

afterAll(async () => {
  await pool.end();
  await sidecar[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scopes = 0;
let place: { scope: { kind: ScopeKind; id: string }; namespace: string };
let before: bigint;

beforeEach(async () => {
  place = { scope: { kind: ScopeKind.AGENT, id: `agent-${scopes++}` }, namespace: "" };
  before = await pluginRevision();
});

const named = (key: string): Name => ({ ...place, key });
const pluginRevision = async () => (await client.call("list", place)).revision;

/** Key, value and revision, counted from where the test began. */
async function entries(): Promise<(readonly [string, string, number])[]> {
  const all = (await readPages(client, place)).flat();
  return all.map(({ key, valueJson, revision }) => [key, valueJson, Number(revision - before)]);
}

async function revisionsTaken(): Promise<number> {
  return Number((await pluginRevision()) - before);
}

/** Plain SQL on the rows of this test's scope. */
function onRows(text: string): Promise<pg.QueryResult> {
  return pool.query(text.replace("ROWS", `plugin_sidecar.plugin_state`), [place.scope.id]);
}

const insertRow = (key: string) => `insert into plugin_sidecar.plugin_state
  (plugin_id, scope_kind, scope_id, state_key, value_json)
  values ('${pluginId}', 'agent', '${place.scope.id}', '${key}', '0')`;

describe("a foreign write takes exactly one revision:", () => {
  test("an upsert, whether or not the entry was there", async () => {
    await host.upsert(named("a"), "1");
    const afterInsert = await entries();
    await host.upsert(named("a"), "2");
    expect(afterInsert).toEqual([["a", "1", 1]]);
    expect(await entries()).toEqual([["a", "2", 2]]);
  });

  test("an upsert and a delete in the instance scope, which has no id", async () => {
    const name = { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: "n", key: "a" };
    await host.upsert(name, "1");
    await host.upsert(name, "2");
    const { entry } = await client.call("get", name);
    await host.delete(name);
    expect(entry).toMatchObject({ valueJson: "2", revision: before + 2n });
    expect((await client.call("get", name)).entry).toBeUndefined();
    expect(await revisionsTaken()).toBe(3);
  });

  test("a delete, but none of what isn't there", async () => {
    await host.upsert(named("a"), "1");
    expect(await host.delete(named("a"))).toBe(true);
    expect(await host.delete(named("a"))).toBe(false);
    expect(await entries()).toEqual([]);
    expect(await revisionsTaken()).toBe(2);
  });

  test("an update of several rows, one for each", async () => {
    for (const key of ["a", "b", "c"]) {
      await host.upsert(named(key), "1");
    }
    await onRows("update ROWS set value_json = '2' where scope_id = $1 and state_key <> 'b'");
    const all = await entries();
    expect(all.map(([key, value]) => key + value)).toEqual(["a2", "b1", "c2"]);
    expect(all.map(([, , revision]) => revision).sort()).toEqual([2, 4, 5]);
  });

  test("an insert or a delete of several rows, one for each", async () => {
    await pool.query(`${insertRow("a")}, ('${pluginId}', 'agent', '${place.scope.id}', 'b', '0')`);
    const inserted = await entries();
    await onRows("delete from ROWS where scope_id = $1");
    expect(inserted.map(([, , revision]) => revision).sort()).toEqual([1, 2]);
    expect(await revisionsTaken()).toBe(4);
  });

  test("each write of a transaction, when it commits", async () => {
    const writer = await pool.connect();
    const own = foreignWriter(writer.query.bind(writer), pluginId);
    await writer.query("begin");
    await own.upsert(named("a"), "1");
    await own.upsert(named("a"), "2");
    await own.delete(named("a"));
    await own.upsert(named("a"), "3");
    const during = await revisionsTaken();
    await writer.query("commit");
    writer.release();
    expect(during).toBe(0);
    expect(await entries()).toEqual([["a", "3", 4]]);
  });
});

describe("no revision is taken", () => {
  test("by what a transaction takes back to a savepoint", async () => {
    const writer = await pool.connect();
    const own = foreignWriter(writer.query.bind(writer), pluginId);
    await writer.query("begin");
    await own.upsert(named("a"), "1");
    await writer.query("savepoint here");
    await own.upsert(named("a"), "2");
    await own.upsert(named("b"), "2");
    await writer.query("rollback to here");
    await own.upsert(named("c"), "3");
    await writer.query("commit");
    writer.release();
    const all = await entries();
    expect(all.map(([key, value]) => key + value)).toEqual(["a1", "c3"]);
    expect(all.map(([, , revision]) => revision).sort()).toEqual([1, 2]);
    expect(await revisionsTaken()).toBe(2);
  });

  test("by a transaction that is rolled back", async () => {
    const writer = await pool.connect();
    await writer.query("begin");
    await foreignWriter(writer.query.bind(writer), pluginId).upsert(named("a"), "1");
    await writer.query("rollback");
    writer.release();
    const set = await client.call("set", { ...named("b"), valueJson: "1" });
    expect(set.revision).toBe(before + 1n);
  });

  test("by an insert that fails because the entry is there, or does nothing", async () => {
    await host.upsert(named("a"), "1");
    await expect(pool.query(insertRow("a"))).rejects.toMatchObject({ code: "23505" });
    await pool.query(`${insertRow("a")} on conflict do nothing`);
    expect(await entries()).toEqual([["a", "1", 1]]);
    expect(await revisionsTaken()).toBe(1);
  });

  test("by an insert for a plugin that isn't registered, which the host's foreign key refuses", async () => {
    const nobody = "00000000-0000-4000-8000-000000000000";
    const upsert = foreignWriter(pool.query.bind(pool), nobody).upsert(named("a"), "1");
    await expect(upsert).rejects.toMatchObject({
      code: "23503",
      constraint: "plugin_state_plugin_id_plugins_id_fk",
    });
    const counters = await database.query(
      "select from plugin_sidecar.plugin_revisions where plugin_id = $1",
      [nobody],
    );
    expect(counters).toEqual([]);
  });
});

test("a transaction that writes for two plugins numbers each plugin's writes", async () => {
  const id = await database.addPlugin("second");
  const writer = await pool.connect();
  const query = writer.query.bind(writer);
  await writer.query("begin");
  await foreignWriter(query, pluginId).upsert(named("a"), "1");
  await foreignWriter(query, id).upsert(named("a"), "2");
  await foreignWriter(query, pluginId).upsert(named("b"), "3");
  await foreignWriter(query, id).delete(named("a"));
  await writer.query("commit");
  writer.release();
  await database.query("select plugin_sidecar.settle_external_writes($1, true)", [id]);
  const revisions = await database.query(
    "select revision from plugin_sidecar.plugin_revisions where plugin_id = $1",
    [id],
  );
  expect(revisions).toEqual([{ revision: "2" }]);
  expect((await entries()).map(([, , revision]) => revision).sort()).toEqual([1, 2]);
});

test("foreign writes and the sidecar's, by turns, number on without a gap", async () => {
  for (let n = 1; n < 20; n += 2) {
    await host.upsert(named("a"), `${n}`);
    const set = await client.call("set", { ...named("a"), valueJson: `${n + 1}` });
    expect(set).toMatchObject({ created: false, revision: before + BigInt(n + 1) });
  }
  await host.delete(named("a"));
  const set = await client.call("set", { ...named("a"), valueJson: '"new"' });
  expect(set).toMatchObject({ created: true, revision: before + 22n });
});

test("writes after a transaction asked for its constraints early are numbered too", async () => {
  const session = await pool.connect();
  try {
    const { upsert } = foreignWriter(session.query.bind(session), pluginId);
    await session.query("begin");
    await upsert(named("a"), "1");
    await session.query("set constraints all immediate");
    await session.query("set constraints all deferred");
    await upsert(named("b"), "2");
    await session.query("commit");
  } finally {
    session.release();
  }
  expect(await entries()).toEqual([
    ["a", "1", 1],
    ["b", "2", 2],
  ]);
});

test("a plugin that is registered later and written by the host first is served from there on", async () => {
  const id = await database.addPlugin("later");
  await foreignWriter(pool.query.bind(pool), id).upsert(named("a"), "1");
  await using later = await testSidecar(database, ["later"]);
  const { entry, revision } = await later.client.call("get", named("a"));
  expect(entry).toMatchObject({ valueJson: "1", revision: 1n });
  expect(revision).toBe(1n);
});

describe("what only a foreign writer can store is served:", () => {
  test("times that protobuf can't hold are left out", async () => {
    for (const [key, time] of Object.entries({
      a: "infinity",
      b: "-infinity",
      c: "4000-01-01 BC",
    })) {
      await host.upsert(named(key), "1");
      await onRows(
        `update ROWS set updated_at = '${time}' where scope_id = $1 and state_key = '${key}'`,
      );
    }
    const { entries: all } = await client.call("list", place);
    expect(all.map(({ updateTime }) => updateTime)).toEqual([undefined, undefined, undefined]);
    expect(all.map(({ createTime }) => typeof createTime)).toEqual(["object", "object", "object"]);
  });

  test("an empty key, and keys beyond the sidecar's limit, page by page", async () => {
    const keys = ["", "k".repeat(1024), "k".repeat(2000)];
    for (const key of keys) {
      await host.upsert(named(key), "1");
    }
    const pages = await readPages(client, { ...place, pageSize: 1 });
    expect(pages.map((page) => page.map(({ key }) => key))).toEqual([...keys.map((key) => [key])]);
    const reversed = await readPages(client, { ...place, pageSize: 1, reverse: true });
    expect(reversed.flat().map(({ key }) => key)).toEqual(keys.reverse());
  });

  test("a value beyond the sidecar's limit", async () => {
    const large = JSON.stringify("v".repeat(5 * 1024 * 1024));
    await host.upsert(named("a"), large);
    const { entry } = await client.call("get", named("a"));
    const { entries: listed } = await client.call("list", place);
    expect(entry!.valueJson === large).toBe(true);
    expect(listed).toEqual([entry]);
  });
});
