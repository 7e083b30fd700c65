import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { CallError, type TestClient } from "./support/client.ts";
import { expectCounted } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginId: string;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  client = server.client;
  pluginId = server.sidecar.bindings[0]!.pluginId;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const table = "plugin_sidecar.plugin_state";

async function connected(): Promise<pg.Client> {
  const connection = new pg.Client(database.connection);
  connection.on("error", () => undefined);
  await connection.connect();
  onTestFinished(() => connection.end());
  return connection;
}

/** Calls until it isn't said any more that others were in the way. */
async function persistently<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CallError) || error.reason !== "DATABASE_UNAVAILABLE") throw error;
    }
  }
}

test("increments by the sidecar and by two external writers of one entry are all done, each with a revision", async () => {
  const scope = { kind: ScopeKind.RUN, id: "increments" };
  const { revision: before } = await client.call("set", { scope, key: "n", valueJson: "0" });
  const hosts = await Promise.all([connected(), connected()]);
  const change = { case: "increment" as const, value: {} };
  const bySidecar = async () => {
    for (let n = 0; n < 60; n++) {
      const requestId = randomUUID();
      await persistently(() => client.call("update", { scope, key: "n", change, requestId }));
    }
  };
  const byHost = async (host: pg.Client) => {
    for (let n = 0; n < 60; n++) {
      await host.query(
        `update ${table} set value_json = to_jsonb(value_json::int + 1) where scope_id = 'increments'`,
      );
    }
  };
  await Promise.all([bySidecar(), bySidecar(), ...hosts.map(byHost)]);
  const { entry, revision } = await client.call("get", { scope, key: "n" });
  expect(entry).toMatchObject({ valueJson: "240", revision });
  expect(revision - before).toBe(240n);
  await expectCounted(database, pluginId);
});

test("of writes of one entry, new or gone each time, what is there in the end was written last", async () => {
  const scope = { kind: ScopeKind.RUN, id: "last" };
  const host = await connected();
  const place = "plugin_id, scope_kind, scope_id, namespace, state_key";
  const values = `'${pluginId}', 'run', 'last', 'default', 'k'`;
  for (let n = 0; n < 60; n++) {
    const external = host.query(
      n % 3 === 0
        ? `delete from ${table} where scope_id = 'last'`
        : `insert into ${table} (${place}, value_json) values (${values}, '"external ${n}"')
             on conflict (${place}) do update set value_json = excluded.value_json`,
    );
    const name = { scope, key: "k" };
    const write = async () => {
      const reply = await (n % 2 === 0
        ? client.call("set", { ...name, valueJson: `"sidecar ${n}"` })
        : client.call("delete", name));
      return reply.revision;
    };
    const [ours] = await Promise.all([persistently(write), external]);
    const { entry, revision } = await client.call("get", name);
    const isOurs = entry?.valueJson === `"sidecar ${n}"`;
    if (isOurs) {
      expect(entry.revision).toBe(ours);
    } else if (entry !== undefined || n % 2 === 0) {
      // Another one's write is there, or what we set isn't: that came after ours.
      expect(entry?.revision ?? revision).toBeGreaterThan(ours);
    }
  }
  await expectCounted(database, pluginId);
});

test("an external insert that waited for another's delete of the same name comes after it", async () => {
  const scope = { kind: ScopeKind.RUN, id: "waits" };
  const [first, second] = await Promise.all([connected(), connected()]);
  await client.call("set", { scope, key: "k", valueJson: "1" });
  await client.call("set", { scope, key: "other", valueJson: "1" });
  const { revision: before } = await client.call("list", { scope });
  const insert = `insert into ${table} (plugin_id, scope_kind, scope_id, state_key, value_json)
    values ('${pluginId}', 'run', 'waits', 'k', '2')`;
  await first.query(`begin; delete from ${table} where scope_id = 'waits' and state_key = 'k'`);
  const waits = second.query(insert);
  await expect
    .poll(() =>
      database.query(
        "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
      ),
    )
    .toHaveLength(1);
  await first.query(`update ${table} set value_json = '2' where scope_id = 'waits'; commit`);
  await waits;
  const { entries, revision } = await client.call("list", { scope });
  expect(revision - before).toBe(3n);
  expect(entries.map((entry) => [entry.key, Number(entry.revision - before)])).toEqual([
    ["k", 3],
    ["other", 2],
  ]);
  await expectCounted(database, pluginId);
});

test("more external writes at once than are numbered in one step are numbered before anything is answered", async () => {
  const scope = { kind: ScopeKind.RUN, id: "many" };
  const { revision: before } = await client.call("list", { scope });
  const insert = `insert into ${table} (plugin_id, scope_kind, scope_id, state_key, value_json)
    select '${pluginId}', 'run', 'many', 'k' || n, to_jsonb(n) from generate_series(1, 12000) n`;
  await database.query(insert);
  const { entry, revision } = await client.call("get", { scope, key: "k11999" });
  expect(entry).toMatchObject({ valueJson: "11999", revision: before + 11_999n });
  expect(revision).toBe(before + 12_000n);
  await database.query(`delete from ${table} where scope_id = 'many'`);
  const set = await client.call("set", { scope, key: "k11999", valueJson: "1" });
  expect(set).toMatchObject({ created: true, revision: before + 24_001n });
  await expectCounted(database, pluginId);
}, 120_000);

test("external writes of many large values are numbered and counted", async () => {
  const scope = { kind: ScopeKind.RUN, id: "large" };
  const { revision: before } = await client.call("list", { scope });
  // Of random text, which isn't stored compressed to nothing.
  await database.query(
    `insert into ${table} (plugin_id, scope_kind, scope_id, state_key, value_json)
     select '${pluginId}', 'run', 'large', 'k' || n,
            to_jsonb((select string_agg(md5(n::text || m), '') from generate_series(1, 32768) m))
       from generate_series(1, 40) n`,
  );
  const { entry, revision } = await client.call("get", { scope, key: "k40" });
  expect(entry!.valueJson).toHaveLength(1024 * 1024 + 2);
  expect(revision).toBe(before + 40n);
  const { bytes } = await expectCounted(database, pluginId);
  expect(bytes).toBeGreaterThan(40 * 1024 * 1024);
}, 120_000);
