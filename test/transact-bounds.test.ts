import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type {
  CheckSchema,
  OperationSchema,
} from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { failure, TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let proxy: FaultProxy;
let server: TestSidecar;
let client: TestClient;

beforeAll(async () => {
  database = await testDatabase();
  proxy = await FaultProxy.before(database.url);
  const { database: throughProxy } = configFor(proxy.through(database.url), []);
  server = await testSidecar(database, ["demo"], {
    database: throughProxy,
    sweepIntervalMs: 3_600_000,
  });
  client = server.client;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

type Operation = MessageInitShape<typeof OperationSchema>;
type Check = MessageInitShape<typeof CheckSchema>;

let scope: { kind: ScopeKind; id: string };
let before: bigint;
let tests = 0;

beforeEach(async () => {
  scope = { kind: ScopeKind.RUN, id: `${tests++}` };
  before = (await client.call("get", { scope, key: "a" })).revision;
});

const set = (key: string, valueJson: string): Operation => ({
  operation: { case: "set", value: { scope, key, valueJson } },
});
const del = (key: string): Operation => ({
  operation: { case: "delete", value: { scope, key } },
});
const append = (key: string, valueJson: string, returnPrevious = false): Operation => {
  const change = { case: "append" as const, value: { valueJson } };
  return { operation: { case: "update", value: { scope, key, change, returnPrevious } } };
};
const check = (key: string, condition: "ifAbsent" | "ifPresent"): Check => ({
  scope,
  key,
  condition: { case: condition, value: true },
});
const many = <T>(count: number, make: (n: number) => T) =>
  Array.from({ length: count }, (_, n) => make(n));

const transact = (operations: Operation[], checks: Check[] = []) =>
  client.call("transact", { operations, checks });

/** The error of a Transact that must fail: it takes no revision. */
async function refusal(operations: Operation[], checks: Check[] = []) {
  const earlier = await client.call("get", { scope, key: "a" });
  const error = await failure(transact(operations, checks));
  expect(await client.call("get", { scope, key: "a" })).toEqual(earlier);
  return error;
}

test("128 checks and 128 operations are taken, and none more of either", async () => {
  const checks = (count: number) => many(count, (n) => check(`${n}`, "ifAbsent"));
  const operations = (count: number) => many(count, (n) => set(`${n}`, "1"));
  const tooManyChecks = await refusal(operations(128), checks(129));
  const tooManyOperations = await refusal(operations(129), checks(128));
  const { results, revision } = await transact(operations(128), checks(128));

  expect(tooManyChecks).toMatchObject({ reason: "INVALID_FIELD", fields: ["checks"] });
  expect(tooManyOperations).toMatchObject({ reason: "INVALID_FIELD", fields: ["operations"] });
  expect(results).toHaveLength(128);
  expect(revision).toBe(before + 128n);
});

test("names and values of 8 MiB are taken, and not of one byte more", async () => {
  const size = 4 * 1024 * 1024;
  const nameBytes = 2 * (scope.id.length + "default".length + 1);
  const text = (bytes: number) => `"${"a".repeat(bytes - 2)}"`;
  const all = (bytes: number) => [set("a", text(size)), set("b", text(bytes - size - nameBytes))];
  const error = await refusal(all(2 * size + 1));
  await transact(all(2 * size));

  expect(error).toMatchObject({
    codeName: "INVALID_ARGUMENT",
    reason: "TOO_LARGE",
    fields: ["operations"],
    metadata: { size: `${2 * size + 1}`, limit: `${2 * size}` },
  });
  const names = ["a", "b"].map((key) => ({ scope, key }));
  const { results } = await client.call("batchGet", { names });
  expect(results.map(({ entry }) => entry!.valueJson.length)).toEqual([size, size - nameBytes]);
});

test("nothing to check or do is refused", async () => {
  const error = await refusal([]);
  expect(error).toMatchObject({ reason: "INVALID_FIELD", fields: ["operations"] });
});

test("answers far larger than a batch's own are answered whole", async () => {
  const value = `["${"a".repeat(2 * 1024 * 1024)}"]`;
  for (let n = 0; n < 8; n += 2) {
    await transact([set(`${n}`, value), set(`${n + 1}`, value)]);
  }
  const operations = many(8, (n) => append(`${n}`, "1", true));
  // A connection each: one may not hold as much as both.
  using other = new TestClient(server.address);
  const replies = await Promise.all(
    [client, other].map((one) => one.call("transact", { operations })),
  );
  const results = replies.flatMap((reply) => reply.results.map(({ result }) => result));
  for (const result of results) {
    expect(result).toMatchObject({ case: "update", value: { changed: true } });
    expect(result.value?.previous?.valueJson.length).toBeGreaterThanOrEqual(value.length);
  }
});

test("a Transact is one statement on the database, whatever it holds", async () => {
  await transact([set("a", "1")]);
  proxy.takeStatements();
  const operations = [set("a", "1"), append("b", "1"), del("none"), del("a"), append("c", "1")];
  await transact(operations, [check("a", "ifPresent")]);
  await failure(transact([set("a", "1")], [check("a", "ifPresent")]));
  const statements = proxy.takeStatements().filter((name) => isOfACall.test(name));
  expect(statements).toEqual(["write_entries", "write_entries"]);
});

/** Not what a sidecar asks without being asked. */
const isOfACall = /^(write_|set_|settle_|read_|list_|delete_)/;
