import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type {
  CheckSchema,
  OperationSchema,
  SetRequestSchema,
  UpdateRequestSchema,
} from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
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

type Operation = MessageInitShape<typeof OperationSchema>;
type Condition = NonNullable<MessageInitShape<typeof CheckSchema>["condition"]>;
type SetFields = Partial<MessageInitShape<typeof SetRequestSchema>>;
type UpdateFields = Partial<MessageInitShape<typeof UpdateRequestSchema>>;

let scope: { kind: ScopeKind; id: string };
let before: bigint;
let tests = 0;

beforeEach(async () => {
  scope = { kind: ScopeKind.RUN, id: `${tests++}` };
  before = (await client.call("get", { scope, key: "a" })).revision;
});

const set = (key: string, valueJson: string, fields: SetFields = {}): Operation => ({
  operation: { case: "set", value: { scope, key, valueJson, ...(fields as object) } },
});
const del = (key: string, fields: SetFields = {}): Operation => ({
  operation: { case: "delete", value: { scope, key, ...(fields as object) } },
});
const add = (key: string, by = "1", fields: UpdateFields = {}): Operation => {
  const change = { case: "increment" as const, value: { by } };
  return { operation: { case: "update", value: { scope, key, change, ...(fields as object) } } };
};
const append = (key: string, valueJson: string): Operation => {
  const change = { case: "append" as const, value: { valueJson } };
  return { operation: { case: "update", value: { scope, key, change } } };
};
const check = (key: string, condition: Condition) => ({ scope, key, condition });
const ifRevision = (value: bigint) => ({ case: "ifRevision" as const, value });
const ifAbsent = { case: "ifAbsent", value: true } as const;
const ifPresent = { case: "ifPresent", value: true } as const;

const transact = (operations: Operation[], checks: ReturnType<typeof check>[] = []) =>
  client.call("transact", { operations, checks });

/** The test's entries: `{ a: "1" }`. */
async function contents(): Promise<Record<string, string>> {
  const { entries } = await client.call("list", { scope, pageSize: 1000 });
  return Object.fromEntries(entries.map(({ key, valueJson }) => [key, valueJson]));
}

/** The error of a Transact that must fail: it changes nothing and takes no revision. */
async function refusal(operations: Operation[], checks: ReturnType<typeof check>[] = []) {
  const earlier = [await contents(), (await client.call("get", { scope, key: "a" })).revision];
  const error = await failure(transact(operations, checks));
  const later = [await contents(), (await client.call("get", { scope, key: "a" })).revision];
  expect(later).toEqual(earlier);
  return error;
}

test("operations are done in order, each with a result of its kind and a revision of its own", async () => {
  await client.call("set", { scope, key: "gone", valueJson: "1" });
  const { results, revision } = await transact([
    set("a", "1"),
    set("b", "[]"),
    del("gone"),
    del("missing"),
    add("a", "2"),
    append("b", "7"),
    set("a", "9", { returnPrevious: true }),
  ]);
  expect(results.map(({ result }) => result)).toMatchObject([
    { case: "set", value: { created: true, revision: before + 2n } },
    { case: "set", value: { created: true, revision: before + 3n } },
    { case: "delete", value: { existed: true, revision: before + 4n } },
    { case: "delete", value: { existed: false, revision: before + 4n } },
    { case: "update", value: { valueJson: "3", created: false, revision: before + 5n } },
    { case: "update", value: { valueJson: "[7]", changed: true, revision: before + 6n } },
    {
      case: "set",
      value: { previous: { valueJson: "3", revision: before + 5n }, revision: before + 7n },
    },
  ]);
  expect(revision).toBe(before + 7n);
  expect(await contents()).toEqual({ a: "9", b: "[7]" });
});

test("operations on one key see those before them: made, changed, removed and made again", async () => {
  const { results } = await transact([
    set("a", "1", { condition: ifAbsent }),
    set("a", "2", { condition: ifPresent, returnPrevious: true }),
    add("a", "5", { condition: ifRevision(before + 2n), returnPrevious: true }),
    del("a", { condition: ifRevision(before + 3n), returnPrevious: true }),
    del("a", { condition: ifAbsent }),
    add("a", "1", { condition: ifAbsent, returnPrevious: true }),
  ]);
  const previous = results.map(({ result }) => result.value?.previous?.valueJson);
  expect(previous).toEqual([undefined, "1", "2", "7", undefined, undefined]);
  expect(results.at(-1)?.result.value).toMatchObject({ created: true, valueJson: "1" });
  const { entry } = await client.call("get", { scope, key: "a" });
  expect(entry).toMatchObject({ valueJson: "1", revision: before + 5n });
});

test("an entry that is made and removed in one Transact takes two revisions and isn't there", async () => {
  const { revision } = await transact([set("a", "1"), del("a")]);
  expect(revision).toBe(before + 2n);
  expect(await contents()).toEqual({});
});

test("checks are about the state before all operations", async () => {
  const { revision } = await client.call("set", { scope, key: "there", valueJson: "1" });
  const checks = [
    check("a", ifAbsent),
    check("there", ifPresent),
    check("there", ifRevision(revision)),
    check("there", ifPresent),
  ];
  await transact([set("a", "1"), del("there")], checks);
  expect(await contents()).toEqual({ a: "1" });
  const error = await refusal([set("a", "2")], checks);
  expect(error.failedChecks).toHaveLength(4);
});

test("checks alone answer the plugin's revision, and take none", async () => {
  await transact([set("a", "1")]);
  const one = await transact([], [check("a", ifPresent)]);
  const two = await transact([], [check("a", ifPresent), check("b", ifAbsent)]);
  expect(one).toMatchObject({ results: [], revision: before + 1n });
  expect(two).toMatchObject({ results: [], revision: before + 1n });
  const error = await refusal([], [check("a", ifAbsent)]);
  expect(error).toMatchObject({ codeName: "ABORTED", reason: "CHECKS_FAILED" });
  expect(error.failedChecks).toEqual([`check 0 ENTRY_EXISTS at ${before + 1n}`]);
});

test("entries of any scopes and namespaces go together", async () => {
  const places = [
    { scope: { kind: ScopeKind.INSTANCE }, namespace: scope.id },
    { scope: { kind: ScopeKind.ISSUE, id: scope.id } },
    { scope: { kind: ScopeKind.ISSUE, id: scope.id }, namespace: "n" },
  ];
  await transact(places.map((place, n) => set("k", `${n}`, place)));
  const read = await Promise.all(places.map((place) => client.call("get", { ...place, key: "k" })));
  expect(read.map(({ entry }) => entry?.valueJson)).toEqual(["0", "1", "2"]);
});

describe("when parts fail nothing is done, and each is named with its reason and the entry's revision:", () => {
  beforeEach(async () => {
    before = (await transact([set("text", '"x"'), set("ten", "10")])).revision;
  });

  test("conditions alone are ABORTED", async () => {
    const error = await refusal(
      [
        set("new", "1"),
        set("ten", "1", { condition: ifAbsent }),
        del("none", { condition: ifPresent }),
        add("none", "1", { condition: ifRevision(4n) }),
        add("ten", "1"),
      ],
      [
        check("ten", ifPresent),
        check("text", ifRevision(1_000_000n)),
        check("none", ifRevision(1n)),
        check("text", ifAbsent),
        check("none", ifPresent),
      ],
    );
    expect(error).toMatchObject({ codeName: "ABORTED", reason: "CHECKS_FAILED", fields: [] });
    expect(error.failedChecks).toEqual([
      `check 1 REVISION_MISMATCH at ${before - 1n}`,
      "check 2 REVISION_MISMATCH",
      `check 3 ENTRY_EXISTS at ${before - 1n}`,
      "check 4 ENTRY_ABSENT",
      `operation 1 ENTRY_EXISTS at ${before}`,
      "operation 2 ENTRY_ABSENT",
      "operation 3 REVISION_MISMATCH",
    ]);
  });

  test.each<[string, () => Operation, string]>([
    ["WRONG_TYPE", () => add("text"), "text"],
    ["OUT_OF_BOUNDS", () => add("ten", "1", { change: over }), "ten"],
    ["TOO_LARGE", () => add("ten", "1", { change: large }), "ten"],
  ])("one that is %s makes it FAILED_PRECONDITION", async (reason, operation, key) => {
    if (reason === "TOO_LARGE") {
      await client.call("set", { scope, key, valueJson: "[]" });
      await client.call("update", { scope, key, change: large });
    }
    const { entry } = await client.call("get", { scope, key });
    const error = await refusal(
      [set("new", "1"), operation()],
      [check("none", ifPresent), check("ten", ifPresent)],
    );
    expect(error).toMatchObject({ codeName: "FAILED_PRECONDITION", reason: "CHECKS_FAILED" });
    const revision = entry!.revision;
    expect(error.failedChecks).toEqual([
      "check 0 ENTRY_ABSENT",
      `operation 1 ${reason} at ${revision}`,
    ]);
  });

  const over = { case: "increment" as const, value: { max: "10" } };
  const large = {
    case: "append" as const,
    value: { valueJson: `"${"a".repeat(3 * 1024 * 1024)}"` },
  };

  test("with the revision that the entry has, not one that it would have had", async () => {
    const error = await refusal([
      set("new", "1"),
      set("new", "2", { condition: ifAbsent }),
      add("ten"),
      add("ten", "1", { condition: ifRevision(before) }),
      del("text"),
      add("text", "1", { condition: ifPresent }),
    ]);
    expect(error.failedChecks).toEqual([
      "operation 1 ENTRY_EXISTS",
      `operation 3 REVISION_MISMATCH at ${before}`,
      `operation 5 ENTRY_ABSENT at ${before - 1n}`,
    ]);
  });

  test("all 256 of them", async () => {
    const parts = Array.from({ length: 128 }, (_, n) => n);
    const error = await refusal(
      parts.map((n) => del(`none ${n}`, { condition: ifPresent })),
      parts.map((n) => check(`none ${n}`, ifPresent)),
    );
    expect(error.failedChecks).toEqual([
      ...parts.map((n) => `check ${n} ENTRY_ABSENT`),
      ...parts.map((n) => `operation ${n} ENTRY_ABSENT`),
    ]);
  });

  test("a lost Transact doesn't touch those that go on beside it", async () => {
    const replies = await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        n % 2 === 0
          ? transact([add("ten"), add("count"), set(`${n}`, "1")])
          : failure(
              transact([set(`${n}`, "1"), add("count"), del("none", { condition: ifPresent })]),
            ),
      ),
    );
    const revisions = replies.flatMap((reply) => ("revision" in reply ? [reply.revision] : []));
    expect(revisions.sort((a, b) => Number(a - b))).toEqual(
      Array.from({ length: 20 }, (_, n) => before + 3n * BigInt(n + 1)),
    );
    const { ten, count, text, ...others } = await contents();
    expect([ten, count, text]).toEqual(["30", "20", '"x"']);
    expect(Object.keys(others).every((key) => Number(key) % 2 === 0)).toBe(true);
  });
});

test("transfers between counters, many at once over two sidecars, keep their sum", async () => {
  await using second = await testSidecar(database);
  const accounts = ["a", "b", "c", "d"];
  await transact(accounts.map((account) => set(account, "100")));
  await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      const from = add(accounts[n % 4]!, "-1");
      const to = add(accounts[(n * 7 + 1) % 4]!, "1");
      const by = n % 2 === 0 ? client : second.client;
      await by.call("transact", { operations: n % 3 === 0 ? [to, from] : [from, to] });
    }),
  );
  const values = Object.values(await contents()).map(Number);
  expect(values.reduce((sum, value) => sum + value)).toBe(400);
});
