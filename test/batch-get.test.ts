import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  client = server.client;
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

const named = (key: string) => ({ scope, key });
const set = (key: string, valueJson: string) => client.call("set", { scope, key, valueJson });
const values = async (...keys: string[]) => {
  const { results } = await client.call("batchGet", { names: keys.map(named) });
  return results.map(({ entry }) => entry?.valueJson);
};

test("entries come in the order of their names, a missing one as a result without an entry", async () => {
  await set("a", "1");
  const { revision } = await set("b", "2");
  const { results, ...reply } = await client.call("batchGet", {
    names: ["b", "missing", "a"].map(named),
  });
  expect(results.map(({ entry }) => entry?.key)).toEqual(["b", undefined, "a"]);
  expect(reply.revision).toBe(revision);
});

test("an entry is answered as Get answers it, whatever its scope and namespace", async () => {
  const names = [
    { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: scope.id, key: "k" },
    { scope: { kind: ScopeKind.ISSUE, id: scope.id }, namespace: "", key: "k" },
    { scope: { kind: ScopeKind.ISSUE, id: scope.id }, namespace: "n", key: "k" },
    { scope: { kind: ScopeKind.GOAL, id: scope.id }, namespace: "n", key: "k" },
  ];
  for (const [n, name] of names.slice(0, 3).entries()) {
    await client.call("set", { ...name, valueJson: `{"n": ${n}.0}`, ttl: { seconds: 3600n } });
  }
  const gets = await Promise.all(names.map((name) => client.call("get", name)));
  const { results } = await client.call("batchGet", { names });
  expect(results.map(({ entry }) => entry)).toEqual(gets.map(({ entry }) => entry));
  expect(results[0]!.entry!.expireTime).toBeDefined();
  expect(results[3]!.entry).toBeUndefined();
});

test.each([
  ["of the instance", { kind: ScopeKind.INSTANCE, id: "" }],
  ["with an id", { kind: ScopeKind.GOAL, id: "g" }],
])("names of one place, %s, are answered as beside a name of another", async (_, place) => {
  const namespace = scope.id;
  const of = (key: string) => ({ scope: place, namespace, key });
  const keys = ["small", "large", "brief", "long", "missing"];
  await client.call("set", { ...of("small"), valueJson: "[1.0]" });
  await client.call("set", { ...of("large"), valueJson: `"${"x".repeat(100_000)}"` });
  await client.call("set", { ...of("brief"), valueJson: "1", ttl: { nanos: 1_000_000 } });
  await client.call("set", { ...of("long"), valueJson: "1", ttl: { seconds: 3600n } });
  await sleep(10);
  const names = keys.map(of);
  const elsewhere = { ...of("small"), namespace: "elsewhere" };

  const alone = await client.call("batchGet", { names });
  const beside = await client.call("batchGet", { names: [...names, elsewhere] });

  expect(alone.results).toEqual(beside.results.slice(0, keys.length));
  expect(alone.results.map(({ entry }) => entry?.key)).toEqual([
    "small",
    "large",
    undefined,
    "long",
    undefined,
  ]);
  for (const [index, name] of names.entries()) {
    expect((await client.call("get", name)).entry).toEqual(alone.results[index]!.entry);
  }
});

test("a name given twice is answered twice", async () => {
  await set("a", "1");
  expect(await values("a", "b", "a", "b", "a")).toEqual(["1", undefined, "1", undefined, "1"]);
});

test("a single name, there or not, is answered alone", async () => {
  await set("a", "1");
  expect(await values("a")).toEqual(["1"]);
  expect(await values("b")).toEqual([undefined]);
});

test("128 names are taken, 129 and none are refused", async () => {
  const keys = Array.from({ length: 129 }, (_, n) => `${n}`);
  await Promise.all(keys.map((key) => set(key, key)));
  expect(await values(...keys.slice(0, 128))).toEqual(keys.slice(0, 128));
  for (const names of [keys.map(named), []]) {
    expect(await failure(client.call("batchGet", { names }))).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      fields: ["names"],
    });
  }
});

test("a bad name is refused with its path", async () => {
  const long = "k".repeat(1025);
  const bad = [
    [{ key: "k" }, "names[1].scope", "INVALID_FIELD"],
    [
      { scope: { kind: 99 as ScopeKind, id: "1" }, key: "k" },
      "names[1].scope.kind",
      "INVALID_FIELD",
    ],
    [{ scope, key: "" }, "names[1].key", "INVALID_FIELD"],
    [{ scope, key: long }, "names[1].key", "TOO_LARGE"],
    [{ scope, namespace: "\0", key: "k" }, "names[1].namespace", "INVALID_FIELD"],
  ] as const;
  for (const [name, field, reason] of bad) {
    const error = await failure(client.call("batchGet", { names: [named("a"), name] }));
    expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", reason, fields: [field] });
  }
});

test("calls at once for large and small entries each get theirs, of one snapshot", async () => {
  const large = (digit: number) => JSON.stringify(`${digit}`.repeat(100_000));
  const small = { a: "1", b: "2", c: "3" };
  const all: Record<string, string | undefined> = { ...small, l: large(1), m: large(2) };
  await Promise.all(Object.entries(all).map(([key, valueJson]) => set(key, valueJson!)));
  const wanted = [["a"], ["l"], ["a", "l"], ["b", "none", "c"], ["m", "l", "none", "m"], ["none"]];
  const batches = Array.from({ length: 60 }, (_, n) => wanted[n % wanted.length]!);
  const [answers, gets] = await Promise.all([
    Promise.all(batches.map((keys) => values(...keys))),
    Promise.all(["l", "a", "m"].map(async (key) => (await client.call("get", named(key))).entry)),
  ]);
  expect(answers).toEqual(batches.map((keys) => keys.map((key) => all[key])));
  expect(gets.map((entry) => entry?.valueJson)).toEqual([all["l"], all["a"], all["m"]]);
});

test("entries of 40 MiB together are answered, and of more than 64 MiB are RESOURCE_EXHAUSTED", async () => {
  const large = JSON.stringify("v".repeat(4 * 1024 * 1024 - 2));
  for (const key of ["a", "b"]) {
    await set(key, large);
  }
  const names = (count: number) => Array.from({ length: count }, (_, n) => named("ab"[n % 2]!));
  const { results } = await client.call("batchGet", { names: names(10) });
  expect(results.every(({ entry }) => entry?.valueJson.length === large.length)).toBe(true);
  expect(await failure(client.call("batchGet", { names: names(20) }))).toMatchObject({
    codeName: "RESOURCE_EXHAUSTED",
    reason: "TOO_LARGE",
    metadata: { limit: `${64 * 1024 * 1024}` },
  });
  expect(await values("missing")).toEqual([undefined]);
});

// Of many names a sidecar that does nothing else reads one half beside the other.
test.for([
  ["of a few names", 0],
  ["of many", 60],
] as const)(
  "it is one snapshot, %s: what Transacts keep equal is never seen to differ",
  async ([, others]) => {
    await using second = await testSidecar(database);
    await using onlyReads = await testSidecar(database);
    const keys = ["a", "b", "c", "d"];
    const missing = Array.from({ length: others }, (_, n) => `missing ${n}`);
    const names = ["a", "b", ...missing, "c", "d"].map(named);
    const writeAll = (by: TestClient, n: number) =>
      by.call("transact", {
        operations: keys.map((key) => ({
          operation: { case: "set", value: { scope, key, valueJson: `${n}` } },
        })),
      });
    await writeAll(client, 0);
    let isWriting = true;
    const write = async () => {
      for (let n = 1; n <= 60; n++) {
        await Promise.all([writeAll(client, n), writeAll(second.client, -n)]);
      }
      isWriting = false;
    };
    const seen = new Set<string>();
    const read = async (by: TestClient) => {
      let last = 0n;
      while (isWriting) {
        const { results, revision } = await by.call("batchGet", { names });
        const entries = results.flatMap(({ entry }) => entry ?? []);
        expect(entries.map(({ key }) => key)).toEqual(keys);
        expect(new Set(entries.map(({ valueJson }) => valueJson)).size).toBe(1);
        // Nothing else is written: the last of the four took the plugin's revision.
        expect(entries.map((entry) => revision - entry.revision)).toEqual([3n, 2n, 1n, 0n]);
        expect(revision).toBeGreaterThanOrEqual(last);
        last = revision;
        seen.add(entries[0]!.valueJson);
      }
    };
    await Promise.all([write(), read(client), read(second.client), read(onlyReads.client)]);
    expect(seen.size).toBeGreaterThan(5);
  },
);
