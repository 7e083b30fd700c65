import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "./support/client.ts";
import { expectCounted, settle } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginIds: string[];

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database, ["demo", "other"]);
  client = server.client;
  pluginIds = server.sidecar.bindings.map((binding) => binding.pluginId);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let tests = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `${tests++}` };
});

const set = (key: string, valueJson = '"sidecar"') => client.call("set", { scope, key, valueJson });
const keysOf = async (by = client) =>
  (await by.call("list", { scope })).entries.map(({ key, valueJson }) => key + valueJson);

/** Plain SQL in one transaction: STATE is the table, HERE the rows of this test's scope, NEW their first columns. */
async function external(...texts: string[]): Promise<void> {
  await database.query(`begin; ${inPlace(texts.join(";"))}; commit`);
}

function inPlace(text: string): string {
  const [demo, other] = pluginIds;
  return text
    .replaceAll("STATE", "plugin_sidecar.plugin_state")
    .replaceAll("HERE", `plugin_id = '${demo}' and scope_id = '${scope.id}'`)
    .replaceAll("NEW", `'${demo}', 'run', '${scope.id}', 'default'`)
    .replaceAll("OTHER", `'${other}'`);
}

const columns = "(plugin_id, scope_kind, scope_id, namespace, state_key, value_json)";
const insert = (key: string, value = '"external"') =>
  `insert into STATE ${columns} values (NEW, '${key}', '${value}')`;

describe("what was committed outside before a call began has a smaller revision than what it does:", () => {
  const change = { case: "append" as const, value: { valueJson: "1" } };
  const calls: Record<string, () => Promise<{ revision: bigint }>> = {
    Set: () => set("k"),
    "Set with a condition": () =>
      client.call("set", {
        scope,
        key: "k",
        valueJson: "1",
        condition: { case: "ifAbsent", value: true },
      }),
    Update: () => client.call("update", { scope, key: "k", change }),
    Delete: () => client.call("delete", { scope, key: "there" }),
    Transact: () =>
      client.call("transact", {
        operations: [{ operation: { case: "set", value: { scope, key: "k", valueJson: "1" } } }],
      }),
    DeleteRange: () => client.call("deleteRange", { scope, prefix: "there" }),
  };

  test.each(Object.keys(calls))("%s", async (call) => {
    await set("there");
    for (let n = 0; n < 3; n++) {
      await set("before");
    }
    await external(insert("a"), insert("b"));
    const { revision } = await calls[call]!();
    const { entries } = await client.call("list", { scope, keysOnly: true });
    const written = entries.filter(({ key }) => key === "a" || key === "b");
    expect(written.map((entry) => Number(revision - entry.revision)).sort()).toEqual([1, 2]);
  });
});

test("a transaction's writes have revisions that follow one another, whatever was committed meanwhile", async () => {
  const { revision: before } = await client.call("list", { scope });
  const other = new pg.Client(database.connection);
  await other.connect();
  onTestFinished(() => other.end());
  await other.query("begin");
  await other.query(inPlace(insert("a")));
  await external(insert("between"));
  await other.query(inPlace(insert("b")));
  await other.query("commit");
  const { entries } = await client.call("list", { scope, keysOnly: true });
  const numbers = entries.map(({ key, revision }) => [key, Number(revision - before)]);
  expect(Object.fromEntries(numbers)).toEqual({ between: 1, a: 2, b: 3 });
});

/** How the rows K1 and K2 came to be that an external writer then changes. */
const origins: Record<string, () => Promise<unknown>> = {
  "the sidecar wrote": async () => {
    await set("K2");
    await set("K1");
  },
  "another wrote": async () => {
    await external(insert("K2", '"sidecar"'), insert("K1", '"sidecar"'));
    await settle(database, pluginIds[0]!);
  },
  "another has just written": () => external(insert("K2", '"sidecar"'), insert("K1", '"sidecar"')),
};

const rest = ['K2"sidecar"'];
const both = ['K1"sidecar"', 'K2"sidecar"'];
const change = (set: string, where = "state_key = 'K1'") =>
  `update STATE set ${set} where HERE and ${where}`;
const again = `insert into STATE ${columns} select plugin_id, scope_kind, scope_id, namespace, state_key, '"again"' from gone`;

/** What is done, what is there afterwards, and how many revisions it took. */
const deeds: Record<string, readonly [sql: string[], left: string[], revisions: number]> = {
  "a row's key is changed": [[change("state_key = 'K3'")], [...rest, 'K3"sidecar"'], 2],
  "a row is moved to another scope": [[change("scope_id = 'elsewhere ' || scope_id")], rest, 2],
  "a row is moved to another namespace": [[change("namespace = 'n'")], rest, 2],
  "a row is moved to another plugin": [[change("plugin_id = OTHER")], rest, 1],
  "keys are passed on in one statement": [
    [
      "set local enable_indexscan = off",
      "set local enable_bitmapscan = off",
      change("state_key = case state_key when 'K1' then 'K2' else 'K3' end", "true"),
    ],
    ['K2"sidecar"', 'K3"sidecar"'],
    4,
  ],
  "keys are swapped by way of a third": [
    [
      change("state_key = 'K3', value_json = '1'"),
      change("state_key = 'K1', value_json = '2'", "state_key = 'K2'"),
      change("state_key = 'K2'", "state_key = 'K3'"),
    ],
    ["K12", "K21"],
    6,
  ],
  "a row is deleted and inserted in one statement": [
    [`with gone as (delete from STATE where HERE and state_key = 'K1' returning *) ${again}`],
    ['K1"again"', ...rest],
    2,
  ],
  "a row is deleted, inserted and changed": [
    [
      `with gone as (delete from STATE where HERE and state_key = 'K1' returning *) ${again}`,
      change(`value_json = '"and again"'`),
    ],
    ['K1"and again"', ...rest],
    3,
  ],
  "a row is deleted and inserted in one transaction": [
    ["delete from STATE where HERE and state_key = 'K1'", insert("K1")],
    ['K1"external"', ...rest],
    2,
  ],
  "a row is changed twice": [
    [change("value_json = '1'"), change("value_json = '2'")],
    ["K12", ...rest],
    2,
  ],
  "a row is changed to what it was": [[change("value_json = value_json")], both, 1],
  "an upsert does nothing": [[`${insert("K1")} on conflict do nothing`], both, 0],
  "a row is inserted and deleted": [
    [insert("K3"), "delete from STATE where HERE and state_key = 'K3'"],
    both,
    2,
  ],
  "all rows are deleted": [["delete from STATE where HERE"], [], 2],
  "a row is merged": [
    [
      `merge into STATE s using (values ('K1'), ('K3')) v (key) on HERE and state_key = v.key
        when matched then update set value_json = '1'
        when not matched then insert ${columns} values (NEW, v.key, '2')`,
    ],
    ["K11", ...rest, "K32"],
    2,
  ],
};

describe.each(Object.keys(origins))("of rows that %s,", (origin) => {
  test.each(Object.keys(deeds))("%s: revisions and counters are right", async (deed) => {
    const [sql, left, revisions] = deeds[deed]!;
    await origins[origin]!();
    const before = await revisionToBe();
    await external(...sql);
    expect(await keysOf()).toEqual(left);
    const { revision } = await expectCounted(database, pluginIds[0]!);
    await expectCounted(database, pluginIds[1]!);
    expect(Number(revision - before)).toBe(revisions);
    await set("K1", '"after"');
    const after = await expectCounted(database, pluginIds[0]!);
    expect(after.revision).toBe(revision + 1n);
  });
});

/** The first plugin's revision once what waits for its own has it. */
async function revisionToBe(): Promise<bigint> {
  const [row] = await database.query<{ revision: string }>(
    `select r.revision + (select count(*) from plugin_sidecar.external_writes w where w.plugin_id = r.plugin_id) as revision
       from plugin_sidecar.plugin_revisions r where r.plugin_id = $1`,
    [pluginIds[0]],
  );
  return BigInt(row!.revision);
}

describe("a truncate", () => {
  test("removes the entries of every plugin, and takes a revision of each", async () => {
    await set("a");
    await server.clients[1]!.call("set", { scope, key: "a", valueJson: "1" });
    const before = await Promise.all(server.clients.map((by) => by.call("list", { scope })));
    await external("truncate STATE");
    const after = await Promise.all(server.clients.map((by) => by.call("list", { scope })));
    expect(after.map(({ entries }) => entries)).toEqual([[], []]);
    expect(after.map(({ revision }, n) => revision - before[n]!.revision)).toEqual([1n, 1n]);
    for (const id of pluginIds) {
      expect(await expectCounted(database, id)).toMatchObject({ entries: 0, bytes: 0 });
    }
  });

  test("between other writes leaves those that came after it", async () => {
    await set("a");
    await external(insert("b"));
    await external(insert("c"), "truncate STATE", insert("d"), insert("b", "2"));
    await external("update STATE set value_json = '3' where HERE and state_key = 'd'");
    expect(await keysOf()).toEqual(["b2", "d3"]);
    expect(await expectCounted(database, pluginIds[0]!)).toMatchObject({ entries: 2 });
  });

  test("that is rolled back changes nothing", async () => {
    await set("a");
    await database.query("begin; truncate plugin_sidecar.plugin_state; rollback");
    expect(await keysOf()).toEqual(['a"sidecar"']);
    await expectCounted(database, pluginIds[0]!);
  });

  test("empties a plugin that has no counter yet, too", async () => {
    const id = await database.addPlugin("unserved");
    await database.query(
      `insert into plugin_sidecar.plugin_state ${columns} values ('${id}', 'run', 'r', 'default', 'k', '1')`,
    );
    await external("truncate STATE");
    expect(await expectCounted(database, id)).toMatchObject({ entries: 0, bytes: 0 });
  });
});
