import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "./support/client.ts";
import { expectCounted } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { foreignWriter } from "./support/foreign-writer.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginId: string;
let pool: pg.Pool;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  client = server.client;
  pluginId = server.sidecar.bindings[0]!.pluginId;
  pool = new pg.Pool(database.connection);
  pool.on("error", () => undefined);
});

afterAll(async () => {
  await pool.end();
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const places = [
  { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: "" },
  { scope: { kind: ScopeKind.RUN, id: "é" }, namespace: "n" },
];
const table = "plugin_sidecar.plugin_state";

type Step = readonly [name: string, key: number, value: string];
type Name = (typeof places)[number] & { key: string };

/** Writes through the sidecar, and plain SQL beside it, in transactions or not. */
const steps: Record<string, (name: Name, value: string) => Promise<unknown>> = {
  set: (name, valueJson) => client.call("set", { ...name, valueJson }),
  delete: (name) => client.call("delete", name),
  append: (name, valueJson) => {
    const change = { case: "append" as const, value: { valueJson } };
    return client.call("update", { ...name, change }).catch(() => undefined);
  },
  transact: (name, valueJson) =>
    client.call("transact", {
      operations: [
        { operation: { case: "delete", value: name } },
        { operation: { case: "set", value: { ...name, valueJson: "[]" } } },
        { operation: { case: "set", value: { ...name, key: "other", valueJson } } },
      ],
    }),
  "lost transact": (name, valueJson) => {
    const condition = { case: "ifAbsent" as const, value: true };
    const once = { operation: { case: "set" as const, value: { ...name, valueJson, condition } } };
    return client.call("transact", { operations: [once, once] }).catch(() => undefined);
  },
  "set with a short time to live": (name, valueJson) =>
    client.call("set", { ...name, valueJson, ttl: { nanos: 1000 } }),
  "foreign upsert": (name, value) => own(pool).upsert(name, value),
  "foreign delete": (name) => own(pool).delete(name),
  "foreign update of all": (_, value) =>
    pool.query(`update ${table} set value_json = value_json || $1::jsonb where state_key < 'c'`, [
      `[${value}]`,
    ]),
  "foreign rename": (name) =>
    pool.query(
      `update ${table} set state_key = state_key || 'é' where state_key = $1 and length(state_key) < 3
          and not exists (select from ${table} where state_key = $1 || 'é')`,
      [name.key],
    ),
  "foreign move to another scope and back": (name, value) =>
    transaction(async (_, query) => {
      const where = `where plugin_id = '${pluginId}' and state_key = '${name.key}' and scope_kind`;
      await query(`update ${table} set scope_kind = 'agent', scope_id = 'a' ${where} = 'run'`);
      await query(
        `update ${table} set scope_kind = 'run', scope_id = 'é', value_json = '${value}' ${where} = 'agent'`,
      );
    }),
  "foreign swap of two keys": (name) =>
    transaction(async (_, query) => {
      const move = (from: string, to: string) =>
        query(`update ${table} set state_key = '${to}' where state_key = '${from}'`);
      await move(name.key, "between");
      await move("other", name.key);
      await move("between", "other");
    }),
  "foreign delete and insert in one statement": (name, value) =>
    pool.query(
      `with gone as (delete from ${table} where state_key = $1 returning *)
       insert into ${table} (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
       select plugin_id, scope_kind, scope_id, namespace, state_key, $2 from gone`,
      [name.key, value],
    ),
  "foreign truncate between writes": (name, value) =>
    transaction(async (writer, query) => {
      await writer.upsert({ ...name, key: "before" }, value);
      await query(`truncate ${table}`);
      await writer.upsert(name, value);
    }),
  "foreign delete of all": () => pool.query(`delete from ${table}`),
  "foreign truncate": () => pool.query(`truncate ${table}`),
  "foreign transaction": (name, value) =>
    transaction(async (writer) => {
      await writer.upsert(name, value);
      await writer.delete({ ...name, key: "other" });
      await writer.upsert({ ...name, key: "other" }, "1");
      await writer.upsert(name, "2");
    }),
  "foreign transaction with a savepoint": (name, value) =>
    transaction(async (writer, query) => {
      await writer.upsert(name, "1");
      await query("savepoint here");
      await writer.delete(name);
      await writer.upsert({ ...name, key: "other" }, value);
      await query("rollback to here");
      await writer.upsert(name, value);
    }),
  "foreign transaction that is rolled back": (name, value) =>
    transaction(async (writer, query) => {
      await writer.upsert(name, value);
      await query("rollback");
    }),
};

function own(by: pg.Pool | pg.PoolClient) {
  return foreignWriter(by.query.bind(by) as pg.Pool["query"], pluginId);
}

async function transaction(
  work: (
    writer: ReturnType<typeof own>,
    query: (text: string) => Promise<unknown>,
  ) => Promise<unknown>,
) {
  const connection = await pool.connect();
  try {
    await connection.query("begin");
    await work(own(connection), (text) => connection.query(text));
    await connection.query("commit");
  } finally {
    await connection.query("rollback");
    connection.release();
  }
}

const step: fc.Arbitrary<Step> = fc.tuple(
  fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...Object.keys(steps)) },
    { weight: 4, arbitrary: fc.constantFrom("set", "append", "foreign upsert") },
  ),
  fc.nat(7),
  fc.constantFrom("1", "1.50", '"é"', '{"b":1,  "a":2}', `["${"x".repeat(9000)}"]`, "1e300"),
);

async function run([name, key, value]: Step) {
  const place = places[key % places.length]!;
  await steps[name]!({ ...place, key: "abcd"[key >> 1]! }, value);
}

test("one after the other, writes of the sidecar and of others leave counters as a recount has them", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: "max" }), async (all) => {
      for (const one of all) {
        await run(one);
      }
      await expectCounted(database, pluginId);
    }),
    { numRuns: 40 },
  );
});

test("side by side, writes of the sidecar and of others leave counters as a recount has them", async () => {
  for (let round = 0; round < 5; round++) {
    const all = fc.sample(step, 120).filter(([name]) => !/truncate|of all|rename|swap/.test(name));
    await Promise.all(
      Array.from({ length: 6 }, async (_, row) => {
        for (const one of all.filter((_, index) => index % 6 === row)) {
          // Foreign writers deadlock among themselves: what is undone then counts for nothing.
          await run(one).catch(() => undefined);
        }
      }),
    );
    await expectCounted(database, pluginId);
  }
});

test("a plugin's counters begin at what it had before the sidecar came", async () => {
  const id = await database.addPlugin("later");
  const writer = foreignWriter(pool.query.bind(pool), id);
  await writer.upsert({ ...places[1]!, key: "k" }, '"four"');
  await using later = await testSidecar(database, ["later"]);
  await later.client.call("set", { ...places[1]!, key: "l", valueJson: "1" });
  const [row] = await database.query(
    "select entries, bytes from plugin_sidecar.plugin_revisions where plugin_id = $1",
    [id],
  );
  const nameBytes = Buffer.byteLength("énk");
  expect(row).toEqual({ entries: "2", bytes: `${2 * nameBytes + 6 + 1}` });
});
