import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { decimal, decimalOf, sumOf } from "./support/decimals.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
/** Of the same plugin; keeps values of 1 KiB at most. */
let small: TestSidecar;
let client: TestClient;

const bounds = { rememberRequestsMs: 600_000, quotaEntries: undefined, quotaBytes: undefined };

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  small = await testSidecar(database, ["demo"], { bounds: { ...bounds, maxValueBytes: 1024 } });
  client = server.client;
});

afterAll(async () => {
  await small[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let name: { scope: { kind: ScopeKind; id: string }; key: string };
let tests = 0;

beforeEach(() => {
  name = { scope: { kind: ScopeKind.RUN, id: `${tests++}` }, key: "k" };
});

interface Increment {
  readonly by?: string;
  readonly initial?: string;
  readonly min?: string;
  readonly max?: string;
  readonly clamp?: boolean;
}
interface Append {
  readonly valueJson: string;
  readonly maxLength?: number;
  readonly unique?: boolean;
}

const set = (valueJson: string) => client.call("set", { ...name, valueJson });
const increment = (value: Increment, by = client) =>
  by.call("update", { ...name, change: { case: "increment", value } });
const append = (value: Append, by = client) =>
  by.call("update", { ...name, change: { case: "append", value } });
const mergePatch = (value: string, by = client) =>
  by.call("update", { ...name, change: { case: "mergePatch", value } });

/** The error of an update that must fail: it changes nothing and takes no revision. */
async function refusal(update: () => Promise<unknown>) {
  const before = await client.call("get", name);
  const error = await failure(update());
  expect(await client.call("get", name)).toEqual(before);
  return error;
}

describe("increment", () => {
  test.each<[string, string, string]>([
    ["0.1", "0.2", "0.3"],
    ["1", "", "2"],
    ["1", "-0.1", "0.9"],
    ["1.50", "1.5", "3.00"],
    ["-5", "5", "0"],
    ["0", "1e3", "1000"],
    ["2.5", "-25E-1", "0.0"],
    ["9007199254740993", "9007199254740993", "18014398509481986"],
    ["9".repeat(3000), "1", `1${"0".repeat(3000)}`],
    ["1", `0.${"0".repeat(3000)}1`, `1.${"0".repeat(3000)}1`],
    ["1e100", "1e-100", `1${"0".repeat(100)}.${"0".repeat(99)}1`],
  ])("%.20s plus %.20s is exact", async (value, by, sum) => {
    await set(value);
    const reply = await increment({ by });
    expect(reply).toMatchObject({ valueJson: sum, created: false, changed: true });
    const { entry } = await client.call("get", name);
    expect(entry).toMatchObject({ valueJson: sum, revision: reply.revision });
  });

  test("adds any two decimals exactly", async () => {
    await fc.assert(
      fc.asyncProperty(decimal, decimal, async (value, by) => {
        await set(value);
        const { valueJson } = await increment({ by });
        expect(decimalOf(valueJson)).toEqual(sumOf(value, by));
      }),
      { numRuns: 100 },
    );
  });

  test.each<[Increment, string]>([
    [{}, "1"],
    [{ by: "5" }, "5"],
    [{ initial: "10" }, "11"],
    [{ by: "-0.5", initial: "1e2" }, "99.5"],
    [{ by: "0" }, "0"],
    [{ by: "-3", min: "-1", clamp: true }, "-1"],
  ])("%j of no entry makes one of %s", async (change, valueJson) => {
    const reply = await increment(change);
    expect(reply).toMatchObject({ valueJson, created: true, changed: true });
    expect((await client.call("get", name)).entry?.valueJson).toBe(valueJson);
  });

  test.each<[Increment, string]>([
    [{ by: "5", max: "15" }, "15"],
    [{ by: "-5", min: "5" }, "5"],
    [{ by: "1", min: "0", max: "100" }, "11"],
    [{ by: "6", max: "15", clamp: true }, "15"],
    [{ by: "-6", min: "5", clamp: true }, "5"],
    [{ by: "-6", max: "5", clamp: true }, "4"],
    [{ by: "6", max: "15.5", min: "1", clamp: true }, "15.5"],
    [{ by: "1e300", max: "1e2", clamp: true }, "100"],
  ])("%j makes %s of 10", async (change, valueJson) => {
    await set("10");
    expect(await increment({ ...change, initial: "77" })).toMatchObject({ valueJson });
  });

  test.each<[string, Increment]>([
    ["10", { by: "5.1", max: "15" }],
    ["10", { by: "-5.1", min: "5" }],
    ["10", { by: "0", max: "9" }],
    ["9e131071", { by: "9e131071" }],
    ["-9e131071", { by: "-9e131071", clamp: true, max: "0" }],
  ])("%s by %j is OUT_OF_BOUNDS, and changes nothing", async (value, change) => {
    const { revision } = await set(value);
    const error = await refusal(() => increment(change));
    expect(error).toMatchObject({
      codeName: "FAILED_PRECONDITION",
      reason: "OUT_OF_BOUNDS",
      metadata: { current: `${revision}` },
      fields: [],
    });
  });

  test("out of its bounds makes no entry where there is none", async () => {
    const error = await refusal(() => increment({ initial: "1", max: "1" }));
    expect(error).toMatchObject({ reason: "OUT_OF_BOUNDS", metadata: {} });
  });

  test("500 at once, over two sidecars, lose none", async () => {
    const replies = await Promise.all(
      Array.from({ length: 500 }, (_, n) => increment({}, n % 2 === 0 ? client : small.client)),
    );
    const values = replies.map(({ valueJson }) => Number(valueJson)).sort((a, b) => a - b);
    expect(values).toEqual(Array.from({ length: 500 }, (_, n) => n + 1));
    expect((await client.call("get", name)).entry?.valueJson).toBe("500");
  });
});

describe("append", () => {
  test.each<[string | undefined, Append, string]>([
    [undefined, { valueJson: "1" }, "[1]"],
    ["[]", { valueJson: "null" }, "[null]"],
    ["[1]", { valueJson: "[2]" }, "[1, [2]]"],
    ["[1]", { valueJson: '{"a":1}' }, '[1, {"a": 1}]'],
    ["[1]", { valueJson: "1" }, "[1, 1]"],
    ["[1, 2]", { valueJson: "3", maxLength: 3 }, "[1, 2, 3]"],
    ["[1, 2, 3]", { valueJson: "4", maxLength: 3 }, "[2, 3, 4]"],
    ["[1, 2, 3, 4, 5]", { valueJson: "6", maxLength: 2 }, "[5, 6]"],
    ["[1, 2]", { valueJson: "3", maxLength: 1 }, "[3]"],
    [undefined, { valueJson: "3", maxLength: 1, unique: true }, "[3]"],
    ["[1]", { valueJson: "2", maxLength: 0x7fffffff }, "[1, 2]"],
    ["[[1], 2]", { valueJson: "1", unique: true }, "[[1], 2, 1]"],
    ['["1"]', { valueJson: "1", unique: true }, '["1", 1]'],
    ["[1, 2]", { valueJson: "3", maxLength: 2, unique: true }, "[2, 3]"],
  ])("to %s of %j makes %s", async (value, change, expected) => {
    if (value !== undefined) {
      await set(value);
    }
    const reply = await append(change);
    expect(reply).toMatchObject({ valueJson: expected, created: !value, changed: true });
    const { entry } = await client.call("get", name);
    expect(entry).toMatchObject({ valueJson: expected, revision: reply.revision });
  });

  test.each<[string, Append]>([
    ["[1, 2, 3]", { valueJson: "1" }],
    ["[1.0]", { valueJson: "1" }],
    ["[1]", { valueJson: "1.00" }],
    ["[100]", { valueJson: "1e2" }],
    ["[0]", { valueJson: "-0" }],
    ['[{"a": 1, "b": [2]}]', { valueJson: '{"b":[2.0],"a":1}' }],
    ["[null]", { valueJson: "null" }],
    ['["é"]', { valueJson: '"\\u00e9"' }],
    ["[1, 2, 3]", { valueJson: "2", maxLength: 1 }],
  ])("to %s of %j, unique, changes nothing and takes no revision", async (value, change) => {
    const { revision } = await set(value);
    await client.call("set", { ...name, key: "other", valueJson: "1" });
    const reply = await append({ ...change, unique: true });
    expect(reply).toMatchObject({ valueJson: value, created: false, changed: false });
    expect(reply.revision).toBe(revision + 1n);
    const { entry } = await client.call("get", name);
    expect(entry).toMatchObject({ valueJson: value, revision });
  });

  test("of what is there, unique, still gives the entry the time to live it asks for", async () => {
    const { revision } = await set("[1]");
    const change = { case: "append" as const, value: { valueJson: "1", unique: true } };
    const reply = await client.call("update", { ...name, change, ttl: { seconds: 3600n } });
    expect(reply).toMatchObject({ valueJson: "[1]", changed: true, revision: revision + 1n });
    expect((await client.call("get", name)).entry?.expireTime).toBeDefined();
  });

  test("200 at once keep each item once, in the order of revisions", async () => {
    const replies = await Promise.all(
      Array.from({ length: 200 }, (_, n) => append({ valueJson: `${n}` })),
    );
    const order = replies
      .map(({ revision }, n) => ({ revision, n }))
      .sort((a, b) => Number(a.revision - b.revision));
    const { entry } = await client.call("get", name);
    expect(JSON.parse(entry!.valueJson)).toEqual(order.map(({ n }) => n));
  });
});

test.each<[string, string, () => Promise<unknown>]>([
  ["increment", '"1"', () => increment({})],
  ["increment", "null", () => increment({})],
  ["increment", "[1]", () => increment({})],
  ["append", '{"a": 1}', () => append({ valueJson: "1" })],
  ["append", "null", () => append({ valueJson: "1" })],
  ["append", "1", () => append({ valueJson: "1", unique: true })],
])("%s to %s is WRONG_TYPE, and changes nothing", async (_, value, update) => {
  const { revision } = await set(value);
  expect(await refusal(update)).toMatchObject({
    codeName: "FAILED_PRECONDITION",
    reason: "WRONG_TYPE",
    metadata: { current: `${revision}` },
    fields: [],
  });
});

test.each<[string, string, () => Promise<unknown>, number]>([
  [
    "append",
    `["${"a".repeat(1000)}"]`,
    () => append({ valueJson: '"12345678901234567"' }, small.client),
    1025,
  ],
  [
    "append, unique",
    "[1]",
    () => append({ valueJson: `"${"a".repeat(1018)}"`, unique: true }, small.client),
    1025,
  ],
  [
    "merge_patch",
    `{"a": "${"a".repeat(1000)}"}`,
    () => mergePatch('{"bc":12345678}', small.client),
    1025,
  ],
  ["increment", "1e1000", () => increment({ by: "1e-23" }, small.client), 1025],
])(
  "%s whose result is larger than a value may be is TOO_LARGE, and changes nothing",
  async (_, value, update, size) => {
    await set(value);
    expect(await refusal(update)).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "TOO_LARGE",
      metadata: { size: `${size}`, limit: "1024" },
    });
  },
);

test("results of just the size that a value may have are kept", async () => {
  await set("1e1000");
  expect((await increment({ by: "1e-22" }, small.client)).valueJson).toHaveLength(1024);
  await set(`["${"a".repeat(1000)}"]`);
  const { valueJson } = await append({ valueJson: '"1234567890123456"' }, small.client);
  expect(valueJson).toHaveLength(1024);
});

test("an update keeps the entry's creation time and its time to live", async () => {
  await client.call("set", { ...name, valueJson: "1", ttl: { seconds: 3600n } });
  const before = await client.call("get", name);
  await increment({});
  const { entry } = await client.call("get", name);
  expect(entry!.createTime).toEqual(before.entry!.createTime);
  expect(entry!.expireTime).toEqual(before.entry!.expireTime);
});
