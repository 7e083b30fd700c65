import { afterEach, beforeEach, expect, test } from "vitest";
import type { ServeConfig } from "../src/config/config.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let proxy: FaultProxy;
let server: TestSidecar | undefined;

beforeEach(async () => {
  database = await testDatabase();
  proxy = await FaultProxy.before(database.url);
});

afterEach(async () => {
  await server?.[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const calls = 60;
const scope = { kind: ScopeKind.INSTANCE };

/** Serves through the proxy, makes 60 Sets and then 60 Gets at once, and tells the statements of each. */
async function statementsOf(overrides: Partial<ServeConfig>) {
  const { database: throughProxy } = configFor(proxy.through(database.url), []);
  server = await testSidecar(database, ["demo"], { database: throughProxy, ...overrides });
  const { client } = server;
  const names = Array.from({ length: calls }, (_, n) => ({ scope, key: `${n}` }));
  // A plugin's first write is sent again once there is a counter.
  await client.call("delete", { scope, key: "0" });
  proxy.takeStatements();
  const sets = names.map((name) => client.call("set", { ...name, valueJson: name.key }));
  const revisions = (await Promise.all(sets)).map(({ revision }) => revision);
  const gets = names.map((name) => client.call("get", name));
  const values = (await Promise.all(gets)).map(({ entry }) => entry?.valueJson);
  expect(new Set(revisions).size).toBe(calls);
  expect(values).toEqual(names.map(({ key }) => key));
  const seen = proxy.takeStatements();
  const count = (statement: string) => seen.filter((name) => name === statement).length;
  return { writes: count("set_entries"), reads: count("read_place") + count("read_entry") };
}

test("calls that come at once share a few statements", async () => {
  const { writes, reads } = await statementsOf({});
  expect(writes).toBeLessThan(calls / 4);
  expect(reads).toBeLessThan(calls / 4);
});

test("BatchGets of a few names share them too, with each other and with Gets; one of many names has its own", async () => {
  await statementsOf({});
  const { client } = server!;
  const named = (n: number) => ({ scope, key: `${n % (calls + 5)}` });
  const expected = (n: number) => (n % (calls + 5) < calls ? `${n % (calls + 5)}` : undefined);
  const takeReads = (statement = /^read_(place|entry)$/) =>
    proxy.takeStatements().filter((name) => statement.test(name)).length;
  takeReads();
  const few = Array.from({ length: calls }, async (_, n) => {
    const wanted = Array.from({ length: 1 + (n % 5) }, (_, k) => n * 7 + k);
    const { results } = await client.call("batchGet", { names: wanted.map(named) });
    expect(results.map(({ entry }) => entry?.valueJson)).toEqual(wanted.map(expected));
  });
  const gets = Array.from({ length: calls }, async (_, n) => {
    expect((await client.call("get", named(n))).entry?.valueJson).toBe(expected(n));
  });
  await Promise.all([...few, ...gets]);
  expect(takeReads()).toBeLessThan(calls / 4);

  // Of two places: one alone isn't read in two parts either.
  const many = Array.from({ length: 32 }, (_, n) => n);
  const names = [...many.map(named), { ...named(0), namespace: "elsewhere" }];
  const long = Array.from({ length: 5 }, async () => {
    const { results } = await client.call("batchGet", { names });
    expect(results.map(({ entry }) => entry?.valueJson)).toEqual([
      ...many.map(expected),
      undefined,
    ]);
  });
  await Promise.all(long);
  expect(takeReads(/^read_entries$/)).toBe(long.length);
});

test("with coalescing off each call is a statement of its own, on no more connections", async () => {
  const { writes, reads } = await statementsOf({ coalescing: false });
  expect({ writes, reads }).toEqual({ writes: calls, reads: calls });
  expect(proxy.connections).toBeLessThanOrEqual(3);
});

test("scans of many callers at once use no more connections either, and all are answered", async () => {
  await statementsOf({});
  const { client } = server!;
  const scans = Array.from({ length: 30 }, (_, n) =>
    n % 2 === 0
      ? client.call("list", { scope, pageSize: 1000 }).then(({ entries }) => entries.length)
      : client.call("listScopes", {}).then(({ scopes }) => Number(scopes[0]?.entries)),
  );
  const points = Array.from({ length: 30 }, () => client.call("get", { scope, key: "1" }));
  expect(await Promise.all(scans)).toEqual(Array(30).fill(calls));
  await Promise.all(points);
  expect(proxy.connections).toBeLessThanOrEqual(3);
});
