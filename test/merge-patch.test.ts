import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { canonical, type Json, mergePatch } from "./support/json.ts";
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

let name: { scope: { kind: ScopeKind; id: string }; key: string };
let tests = 0;

beforeEach(() => {
  name = { scope: { kind: ScopeKind.RUN, id: `${tests++}` }, key: "k" };
});

const set = (valueJson: string) => client.call("set", { ...name, valueJson });
const patch = (value: string) =>
  client.call("update", { ...name, change: { case: "mergePatch", value } });

/** A patch of `a`s within each other, so many levels deep, around a text. */
const nested = (levels: number, inside = "1") =>
  '{"a":'.repeat(levels) + inside + "}".repeat(levels);

test.each([
  ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
  ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
  ['{"a":"b"}', '{"a":null}', "{}"],
  ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
  ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
  ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
  ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
  ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
  ['["a","b"]', '["c","d"]', '["c","d"]'],
  ['{"a":"b"}', '["c"]', '["c"]'],
  ['{"a":"foo"}', "null", "null"],
  ['{"a":"foo"}', '"bar"', '"bar"'],
  ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
  ["[1,2]", '{"a":"b","c":null}', '{"a":"b"}'],
  ["{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
])("as RFC 7396 has it, %s patched with %s is %s", async (value, text, expected) => {
  await set(value);
  const reply = await patch(text);
  expect(reply).toMatchObject({ created: false, changed: true });
  expect(JSON.parse(reply.valueJson)).toEqual(JSON.parse(expected));
  const { entry } = await client.call("get", name);
  expect(entry).toMatchObject({ valueJson: reply.valueJson, revision: reply.revision });
});

test.each([
  ['{"a":1,"b":null}', '{"a": 1}'],
  ['{"a":{"b":null}}', '{"a": {}}'],
  ["{}", "{}"],
  ["[null]", "[null]"],
  ["null", "null"],
])("%s makes an entry that isn't there, as if it had been {}", async (text, expected) => {
  expect(await patch(text)).toMatchObject({ valueJson: expected, created: true, changed: true });
});

test("a patch that changes nothing is a write all the same", async () => {
  const { revision } = await set('{"a": 1}');
  const reply = await patch("{}");
  expect(reply).toMatchObject({ valueJson: '{"a": 1}', changed: true, revision: revision + 1n });
});

test("a null that the patch doesn't name stays, also in arrays", async () => {
  await set('{"a": null, "b": {"c": null}}');
  const reply = await patch('{"b": {"d": [null, {"e": null}]}}');
  expect(JSON.parse(reply.valueJson)).toEqual({
    a: null,
    b: { c: null, d: [null, { e: null }] },
  });
});

test("numbers that the patch doesn't name keep every digit", async () => {
  const digits = "1234567890.12345678901234567890";
  await set(`{"a": ${digits}}`);
  expect((await patch('{"b":1.0}')).valueJson).toBe(`{"a": ${digits}, "b": 1.0}`);
});

test("any value patched with any patch is what RFC 7396's own lines make of it", async () => {
  await fc.assert(
    fc.asyncProperty(json, json, async (value, change) => {
      await set(JSON.stringify(value));
      const { valueJson } = await patch(JSON.stringify(change));
      expect(canonical(JSON.parse(valueJson))).toBe(canonical(mergePatch(value, change)));
    }),
    { numRuns: 300 },
  );
});

/** Values whose members meet: few names, among them those that are special to JavaScript. */
const { json } = fc.letrec<{ json: Json }>((tie) => {
  const names = fc.constantFrom("a", "b", "", "__proto__", "constructor", "é");
  const members = fc.array(fc.tuple(names, tie("json")), { maxLength: 4 });
  return {
    json: fc.oneof(
      { maxDepth: 4, depthIdentifier: "json" },
      fc.constantFrom<Json>(null, null, true, 0, 1.5, "x"),
      { weight: 3, arbitrary: members.map((all) => Object.fromEntries(all)) },
      fc.array(tie("json"), { maxLength: 2 }),
    ),
  };
});

test("a patch nested 100 levels deep is applied, and one of 101 refused", async () => {
  expect((await patch(nested(100))).valueJson).toBe(nested(100).replaceAll(":", ": "));
  expect((await patch(nested(100, "2"))).valueJson).toBe(nested(100, "2").replaceAll(":", ": "));
  const mixed = `${'{"a":['.repeat(50)}1${"]}".repeat(50)}`;
  expect((await patch(mixed)).changed).toBe(true);
  for (const text of [nested(101), nested(100, "[]"), `[${nested(100)}]`, nested(50_000)]) {
    const error = await failure(patch(text));
    expect(error).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "INVALID_VALUE",
      fields: ["merge_patch"],
    });
  }
});

test("a patch of a value nested 1,000 levels deep changes it where it says", async () => {
  await set(nested(1000));
  const { valueJson } = await patch(nested(99, '{"b":1}'));
  expect(valueJson).toContain('"b": 1');
  expect(valueJson.split('{"a": ').length - 1).toBe(1000);
});

test("a patch of many members is applied whole", async () => {
  const members = (value: (n: number) => unknown) =>
    JSON.stringify(
      Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`m${n}`, value(n)])),
    );
  await set(members((n) => n));
  const { valueJson } = await patch(members((n) => (n % 2 === 0 ? null : { was: n })));
  const all = Object.entries<{ was: number }>(JSON.parse(valueJson));
  expect(all).toHaveLength(10_000);
  expect(all.every(([member, { was }]) => member === `m${was}`)).toBe(true);
});
