import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { type TestSidecar, testSidecar } from "../support/sidecar.ts";

let database: TestDatabase;
let sidecars: TestSidecar[];

beforeAll(async () => {
  database = await testDatabase();
  sidecars = [await testSidecar(database), await testSidecar(database)];
});

afterAll(async () => {
  await Promise.all(sidecars.map((sidecar) => sidecar[Symbol.asyncDispose]()));
  await database[Symbol.asyncDispose]();
});

const scope = { kind: ScopeKind.INSTANCE };

/** Calls all at once, on both sidecars in turn. */
function atOnce<T>(
  calls: number,
  call: (client: TestClient, n: number) => Promise<T>,
): Promise<T[]> {
  return Promise.all(
    Array.from({ length: calls }, (_, n) => call(sidecars[n % sidecars.length]!.client, n)),
  );
}

async function valueAt(key: string): Promise<unknown> {
  const { entry } = await sidecars[0]!.client.call("get", { scope, key });
  return JSON.parse(entry!.valueJson);
}

test("50 increments of one counter at once make 50, and each is answered another number", async () => {
  const change = { case: "increment", value: {} } as const;
  const replies = await atOnce(50, (client) => client.call("update", { scope, key: "n", change }));
  expect(await valueAt("n")).toBe(50);
  const answers = replies.map(({ valueJson }) => Number(valueJson)).sort((a, b) => a - b);
  expect(answers).toEqual(Array.from({ length: 50 }, (_, n) => n + 1));
  expect(replies.filter(({ created }) => created)).toHaveLength(1);
});

test("1,000 unique appends of 100 items at once leave each item there once", async () => {
  const replies = await atOnce(1_000, (client, n) => {
    const item = { id: Math.floor(n / 10) };
    const value = { valueJson: JSON.stringify(item), unique: true };
    return client.call("update", { scope, key: "items", change: { case: "append", value } });
  });
  const items = (await valueAt("items")) as { id: number }[];
  expect(items.map(({ id }) => id).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 100 }, (_, id) => id),
  );
  expect(replies.filter(({ changed }) => changed)).toHaveLength(100);
});

test("of 50 sets at once under if_absent one succeeds, and the others are told its revision", async () => {
  const condition = { case: "ifAbsent", value: true } as const;
  const outcomes = await atOnce(50, (client, n) =>
    client.call("set", { scope, key: "lock", valueJson: String(n), condition }).then(
      ({ revision }) => ({ revision, owner: n }),
      (error) => ({ reason: error.reason, current: BigInt(error.metadata.current) }),
    ),
  );
  const winners = outcomes.filter((outcome) => "owner" in outcome);
  expect(winners).toHaveLength(1);
  const { revision: current, owner } = winners[0]!;
  expect(await valueAt("lock")).toBe(owner);
  const losers = outcomes.filter((outcome) => !("owner" in outcome));
  expect(losers).toEqual(losers.map(() => ({ reason: "ENTRY_EXISTS", current })));
});

test("50 attempts at one increment under one request id at once count once, and answer the same", async () => {
  const request = {
    scope,
    key: "once",
    change: { case: "increment", value: {} },
    requestId: "0b8f1f0e-6c2d-4d0e-9c3a-5d2b6c7e8f90",
  } as const;
  const replies = await atOnce(50, (client) => client.call("update", request));
  expect(await valueAt("once")).toBe(1);
  expect(replies).toEqual(replies.map(() => replies[0]));
});
