import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { ListRequest } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let scopes = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `list-${scopes++}` };
});

async function store(...keys: string[]): Promise<void> {
  await Promise.all(
    keys.map((key) => server.client.call("set", { scope, key, valueJson: JSON.stringify(key) })),
  );
}

type Options = Partial<
  Pick<ListRequest, "prefix" | "start" | "startAfter" | "end" | "reverse" | "pageSize">
>;

async function keysOf(options: Options = {}): Promise<string[]> {
  const { entries } = await server.client.call("list", { scope, ...options });
  return entries.map(({ key }) => key);
}

/** In byte order of UTF-8. By UTF-16 units the last three would come before U+E000. */
const inByteOrder = [
  ..."\u0001\n \"%'-0A\\_a",
  "a\u0001",
  "aa",
  "a\u{10ffff}",
  ..."b\u007f\u0080é\u07ff\u0800\ud7ff",
  "\ud7ff\ud7ff",
  ..."\ue000\ufeff\ufffd\uffff",
  "\uffff\uffff",
  "\u{10000}",
  "\u{1f600}",
  "\u{10ffff}",
  "\u{10ffff}\u{10ffff}",
];

test("keys come in byte order of their UTF-8, or from the last to the first", async () => {
  await store(...inByteOrder);
  expect(await keysOf()).toEqual(inByteOrder);
  expect(await keysOf({ reverse: true })).toEqual([...inByteOrder].reverse());
});

test("every key is where a range says, whichever way the bounds are given", async () => {
  await store(...inByteOrder);
  for (const [at, key] of inByteOrder.entries()) {
    const [from, after, before, reversed] = await Promise.all([
      keysOf({ start: key }),
      keysOf({ startAfter: key }),
      keysOf({ end: key }),
      keysOf({ end: key, reverse: true }),
    ]);
    expect(from).toEqual(inByteOrder.slice(at));
    expect(after).toEqual(inByteOrder.slice(at + 1));
    expect(before).toEqual(inByteOrder.slice(0, at));
    expect(reversed).toEqual(inByteOrder.slice(0, at).reverse());
  }
});

describe("a prefix", () => {
  test.each([
    ["%", ["%", "%a"]],
    ["_", ["_", "_a"]],
    ["\\", ["\\", "\\%", "\\_"]],
    ["'", ["'", "''"]],
    ['"', ['"']],
    ["\n", ["\n", "\n\n"]],
    ["a", ["a", "a%", "a_", "ab", "a\u{10ffff}"]],
    ["a\u{10ffff}", ["a\u{10ffff}"]],
    ["\ud7ff", ["\ud7ff", "\ud7ff\ue000"]],
    ["\uffff", ["\uffff", "\uffffa"]],
    ["\u{10ffff}", ["\u{10ffff}", "\u{10ffff}a", "\u{10ffff}\u{10ffff}"]],
    ["\u{10ffff}\u{10ffff}", ["\u{10ffff}\u{10ffff}"]],
    ["é", ["é"]],
    ["", everyKey()],
    ["absent", []],
  ])("of %j is taken literally", async (prefix, expected) => {
    await store(...everyKey());
    expect(await keysOf({ prefix })).toEqual(expected);
    expect(await keysOf({ prefix, reverse: true })).toEqual([...expected].reverse());
  });

  test("of the largest size finds the key that it is", async () => {
    const key = "\u{10ffff}".repeat(256);
    await store(key, "\u{10ffff}".repeat(255));
    expect(await keysOf({ prefix: key })).toEqual([key]);
  });

  test.each<[Options, string[]]>([
    [{ start: "a" }, ["b", "ba", "bb"]],
    [{ start: "ba" }, ["ba", "bb"]],
    [{ start: "c" }, []],
    [{ startAfter: "a" }, ["b", "ba", "bb"]],
    [{ startAfter: "b" }, ["ba", "bb"]],
    [{ startAfter: "bb" }, []],
    [{ end: "z" }, ["b", "ba", "bb"]],
    [{ end: "bb" }, ["b", "ba"]],
    [{ end: "a" }, []],
    [{ start: "ba", end: "bb" }, ["ba"]],
    [{ startAfter: "ba", end: "ba" }, []],
  ])("of b isn't widened by a range, but narrowed: %j", async (range, expected) => {
    await store("a", "az", "b", "ba", "bb", "c");
    expect(await keysOf({ prefix: "b", ...range })).toEqual(expected);
    expect(await keysOf({ prefix: "b", ...range, reverse: true })).toEqual(expected.reverse());
  });
});

/** Keys that a pattern, a quote or a successor done wrong would confuse, in byte order. */
function everyKey(): string[] {
  return [
    ...["\n", "\n\n", '"', "%", "%a", "'", "''", "\\", "\\%", "\\_", "_", "_a"],
    ...["a", "a%", "a_", "ab", "a\u{10ffff}", "b", "é", "\ud7ff", "\ud7ff\ue000", "\ue000"],
    ...["\uffff", "\uffffa", "\u{10000}", "\u{10ffff}", "\u{10ffff}a", "\u{10ffff}\u{10ffff}"],
  ];
}

test("a range that ends before it starts is empty", async () => {
  await store("a", "b", "c");
  expect(await keysOf({ start: "c", end: "a" })).toEqual([]);
  expect(await keysOf({ start: "b", end: "b" })).toEqual([]);
});

test("entries are whole; with keys_only all but their values", async () => {
  await store("a", "b");
  const whole = await server.client.call("list", { scope });
  const keysOnly = await server.client.call("list", { scope, keysOnly: true });
  const single = await server.client.call("get", { scope, key: "a" });
  expect(whole.entries[0]).toEqual(single.entry);
  expect(whole.entries.map(({ valueJson }) => valueJson)).toEqual(['"a"', '"b"']);
  const blanked = whole.entries.map((entry) => ({ ...entry, valueJson: "" }));
  expect(keysOnly.entries).toEqual(blanked);
  expect(keysOnly.revision).toBe(whole.revision);
});

test("only the scope and namespace asked for are listed", async () => {
  const places = [
    { scope, namespace: "" },
    { scope, namespace: "other" },
    { scope: { ...scope, kind: ScopeKind.ISSUE }, namespace: "" },
    { scope: { ...scope, id: `${scope.id}0` }, namespace: "" },
    { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: scope.id },
  ];
  await Promise.all(
    places.map((place, n) => server.client.call("set", { ...place, key: `k${n}`, valueJson: "1" })),
  );
  const replies = await Promise.all(places.map((place) => server.client.call("list", place)));
  const keys = replies.map(({ entries }) => entries.map(({ key }) => key));
  expect(keys).toEqual([["k0"], ["k1"], ["k2"], ["k3"], ["k4"]]);
});

test("nothing to list is an empty last page with the plugin's revision", async () => {
  const set = await server.client.call("set", { scope, key: "a", valueJson: "1" });
  const list = await server.client.call("list", { scope, namespace: "empty" });
  expect(list).toMatchObject({ entries: [], nextPageToken: "", revision: set.revision });
});
