import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;
/** Another sidecar of the same plugin, which remembers for a second. */
let brief: TestSidecar;
let client: TestClient;

const bounds = { maxValueBytes: 2 ** 22, quotaEntries: undefined, quotaBytes: undefined };

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
  brief = await testSidecar(database, ["demo"], {
    bounds: { ...bounds, rememberRequestsMs: 4_000 },
  });
  client = server.client;
});

afterAll(async () => {
  await brief[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let name: { scope: { kind: ScopeKind; id: string }; key: string };
let requestId: string;
let tests = 0;

beforeEach(() => {
  name = { scope: { kind: ScopeKind.RUN, id: `${tests++}` }, key: "k" };
  requestId = randomUUID();
});

const one = { case: "increment" as const, value: {} };
const increment = (by = client, fields: object = {}) =>
  by.call("update", { ...name, change: one, requestId, ...fields });
const pluginRevision = async () => (await client.call("get", name)).revision;

/** Every kind of write, with all that it can answer. */
const writes = {
  set: (by: TestClient) =>
    by.call("set", { ...name, valueJson: "7", returnPrevious: true, requestId }),
  delete: (by: TestClient) => by.call("delete", { ...name, returnPrevious: true, requestId }),
  update: (by: TestClient) => increment(by, { returnPrevious: true }),
  transact: (by: TestClient) =>
    by.call("transact", {
      requestId,
      checks: [{ ...name, condition: { case: "ifPresent", value: true } }],
      operations: [
        { operation: { case: "update", value: { ...name, change: one, returnPrevious: true } } },
        { operation: { case: "set", value: { ...name, key: "other", valueJson: "[1.0]" } } },
        { operation: { case: "delete", value: { ...name, returnPrevious: true } } },
        { operation: { case: "delete", value: { ...name } } },
      ],
    }),
};

describe.each(Object.keys(writes) as (keyof typeof writes)[])("a repeated %s", (method) => {
  beforeEach(async () => {
    await client.call("set", { ...name, valueJson: "5", ttl: { seconds: 3600n } });
  });

  test("answers what it answered at first, and isn't done again", async () => {
    const first = await writes[method](client);
    const revision = await pluginRevision();
    expect(await writes[method](client)).toEqual(first);
    expect(await pluginRevision()).toBe(revision);
  });

  test("answers so after other writes in between, from another sidecar too", async () => {
    const first = await writes[method](client);
    await client.call("set", { ...name, valueJson: '"other"' });
    await client.call("delete", { ...name, key: "other" });
    const after = await client.call("get", name);
    expect(await writes[method](brief.client)).toEqual(first);
    expect(await writes[method](client)).toEqual(first);
    expect(await client.call("get", name)).toEqual(after);
  });

  test("20 times at once, over two sidecars, is done once", async () => {
    const before = await pluginRevision();
    const all = Array.from({ length: 20 }, (_, n) => writes[method](n % 2 ? client : brief.client));
    const [first, ...others] = await Promise.all(all);
    expect(others).toEqual(Array.from({ length: 19 }, () => first));
    expect(await pluginRevision()).toBe(before + (method === "transact" ? 3n : 1n));
  });
});

test("a write that did nothing is remembered as well", async () => {
  const nothing = await client.call("delete", { ...name, requestId });
  await client.call("set", { ...name, valueJson: "[1]" });
  const again = await client.call("delete", { ...name, requestId });
  expect(again).toEqual(nothing);

  const change = { case: "append" as const, value: { valueJson: "1", unique: true } };
  const append = { ...name, change, requestId: randomUUID() };
  const unchanged = await client.call("update", append);
  await client.call("set", { ...name, valueJson: "[]" });
  expect(unchanged).toMatchObject({ changed: false, valueJson: "[1]" });
  expect(await client.call("update", append)).toEqual(unchanged);
  expect((await client.call("get", name)).entry?.valueJson).toBe("[]");
});

test("checks alone are remembered: they held once, and the answer stays the same", async () => {
  const checks = [{ ...name, condition: { case: "ifAbsent" as const, value: true } }];
  for (const all of [checks, [...checks, ...checks]]) {
    const request = { checks: all, requestId: randomUUID() };
    await client.call("delete", name);
    const first = await client.call("transact", request);
    await client.call("set", { ...name, valueJson: "1" });
    expect(await client.call("transact", request)).toEqual(first);
  }
});

test("an id in capitals, or without hyphens, is the same id", async () => {
  const first = await increment();
  expect(await increment(client, { requestId: requestId.toUpperCase() })).toEqual(first);
  expect(await increment(client, { requestId: requestId.replaceAll("-", "") })).toEqual(first);
});

describe("another request under the same id is REQUEST_ID_REUSED, and isn't done:", () => {
  const deleteIt = { case: "delete" as const };
  test.each<[string, () => Promise<unknown>]>([
    ["another value", () => client.call("set", { ...name, valueJson: "2", requestId })],
    ["another key", () => client.call("set", { ...name, key: "l", valueJson: "1", requestId })],
    [
      "another scope",
      () => client.call("set", { ...name, scope: { kind: 1 }, valueJson: "1", requestId }),
    ],
    [
      "another condition",
      () => {
        const condition = { case: "ifPresent" as const, value: true };
        return client.call("set", { ...name, valueJson: "1", condition, requestId });
      },
    ],
    [
      "a time to live",
      () => client.call("set", { ...name, valueJson: "1", ttl: { seconds: 9n }, requestId }),
    ],
    [
      "return_previous",
      () => client.call("set", { ...name, valueJson: "1", returnPrevious: true, requestId }),
    ],
    ["another method", () => client.call("delete", { ...name, requestId })],
    ["a change", () => increment()],
    [
      "a Transact of the same",
      () => {
        const value = { ...name, valueJson: "1" };
        const operations = [{ operation: { case: "set" as const, value } }];
        return client.call("transact", { operations, requestId });
      },
    ],
    [
      "several operations",
      () => {
        const value = { ...name, valueJson: "1" };
        const operations = [
          { operation: { case: "set" as const, value } },
          { operation: { ...deleteIt, value: name } },
        ];
        return client.call("transact", { operations, requestId });
      },
    ],
  ])("%s", async (_, another) => {
    const request = { ...name, valueJson: "1", requestId };
    const first = await client.call("set", request);
    expect(await failure(another())).toMatchObject({
      codeName: "INVALID_ARGUMENT",
      reason: "REQUEST_ID_REUSED",
      fields: ["request_id"],
    });
    expect(await pluginRevision()).toBe(first.revision);
    expect(await client.call("set", request)).toEqual(first);
  });
});

test("a write that was refused isn't remembered: repeated, it is judged anew", async () => {
  const condition = { case: "ifPresent" as const, value: true };
  const set = { ...name, valueJson: "1", condition, requestId };
  const transact = {
    requestId: randomUUID(),
    checks: [{ ...name, condition }],
    operations: [{ operation: { case: "update" as const, value: { ...name, change: one } } }],
  };
  expect(await failure(client.call("set", set))).toMatchObject({ reason: "ENTRY_ABSENT" });
  expect(await failure(client.call("transact", transact))).toMatchObject({
    reason: "CHECKS_FAILED",
  });
  // Not even the request is: another one may have the id.
  expect(await increment()).toMatchObject({ valueJson: "1" });
  expect((await client.call("transact", transact)).results).toHaveLength(1);
  expect(await failure(client.call("set", set))).toMatchObject({ reason: "REQUEST_ID_REUSED" });
});

test("an id is forgotten after the time the sidecar was told, and may be used again", async () => {
  const first = await increment(brief.client);
  expect(await increment(brief.client)).toEqual(first);
  await expect
    .poll(async () => (await increment(brief.client)).valueJson, { interval: 100 })
    .toBe("2");
  expect(await failure(client.call("delete", { ...name, requestId }))).toMatchObject({
    reason: "REQUEST_ID_REUSED",
  });
});

test("the same id of two plugins is two ids", async () => {
  await using both = await testSidecar(database, ["demo", "other"]);
  const [mine, others] = both.clients;
  await increment(mine, { requestId });
  const theirs = await others!.call("set", { ...name, valueJson: "1", requestId });
  expect(theirs).toMatchObject({ created: true, revision: 1n });
});

test("many writes with ids in one batch are each done once, whichever of them are refused", async () => {
  const requests = Array.from({ length: 60 }, (_, n) => ({
    requestId: randomUUID(),
    ...(n % 3 === 0 && { condition: { case: "ifRevision" as const, value: 0n } }),
  }));
  const all = await Promise.allSettled([
    ...requests.map((request) => increment(client, request)),
    ...requests.map((request) => increment(client, request)),
  ]);
  const answers = all.map((one) =>
    one.status === "fulfilled" ? one.value.valueJson : one.reason.reason,
  );
  expect(answers.slice(60)).toEqual(answers.slice(0, 60));
  expect(answers.filter((answer) => answer === "REVISION_MISMATCH")).toHaveLength(40);
  expect((await client.call("get", name)).entry?.valueJson).toBe("40");
});
