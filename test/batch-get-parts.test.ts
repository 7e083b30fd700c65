import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ServeConfig } from "../src/config/config.ts";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { checkWritable } from "../src/postgres/statements.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

// A BatchGet of many names that comes alone is read by two statements at once: the first names by one, the
// last by the other.

let database: TestDatabase;
let proxy: FaultProxy;
/** Reads through the proxy, and does nothing else. */
let reader: TestSidecar;
let writer: TestSidecar;
let overrides: Partial<ServeConfig>;

beforeEach(async () => {
  database = await testDatabase();
  proxy = await FaultProxy.before(database.url);
  // What has expired isn't swept meanwhile, which is a write, and nothing else keeps the reader busy.
  const sweepIntervalMs = 3_600_000;
  writer = await testSidecar(database, ["demo"], { sweepIntervalMs });
  const { database: throughProxy } = configFor(proxy.through(database.url), []);
  overrides = { database: throughProxy, sweepIntervalMs };
  reader = await testSidecar(database, ["demo"], overrides);
});

afterEach(async () => {
  await reader[Symbol.asyncDispose]();
  await writer[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const scope = { kind: ScopeKind.AGENT, id: "a" };
const missing = Array.from({ length: 98 }, (_, n) => `missing ${n}`);
const keys = ["first", ...missing, "last"];
const names = keys.map((key) => ({ scope, key }));

async function read() {
  const { results, revision } = await reader.client.call("batchGet", { names });
  expect(results).toHaveLength(names.length);
  return { values: results.flatMap(({ entry }) => entry?.valueJson ?? []), revision };
}

/** The first and the last name get the same value. */
async function writeBoth(valueJson: string, ttl?: { seconds: bigint }) {
  const { revision } = await writer.client.call("transact", {
    operations: ["first", "last"].map((key) => ({
      operation: { case: "set", value: { scope, key, valueJson, ...(ttl && { ttl }) } },
    })),
  });
  return revision;
}

function takeReads(): number {
  return proxy.takeStatements().filter((name) => name === "read_place").length;
}

/** What the reader asks of itself, with its name or without. */
function isOwnQuestion(statement: string): boolean {
  return statement === checkWritable.name || statement === checkWritable.text;
}

/**
 * Reads until there is a second connection for it. The reader has just asked its own question, which it does
 * twice a second: a call beside that isn't alone.
 */
async function untilParted(): Promise<void> {
  await expect.poll(() => proxy.takeStatements().some(isOwnQuestion)).toBe(true);
  await expect
    .poll(async () => {
      takeReads();
      await read();
      return takeReads();
    })
    .toBe(2);
}

test("it's read by two statements as soon as there's a second connection", async () => {
  const revision = await writeBoth("1");
  await untilParted();

  expect(await read()).toEqual({ values: ["1", "1"], revision });
  expect(takeReads()).toBe(2);
  expect(proxy.connections).toBeLessThanOrEqual(3);
});

test("where there may be no second connection, it's read by one", async () => {
  await using narrow = await testSidecar(database, ["demo"], { ...overrides, poolSize: 1 });
  const revision = await writeBoth("1");
  const connections = proxy.connections;
  proxy.takeStatements();
  for (let n = 0; n < 3; n++) {
    expect((await narrow.client.call("batchGet", { names })).revision).toBe(revision);
  }
  expect(takeReads()).toBe(3);
  expect(proxy.connections).toBe(connections);
});

test("what is written between the two statements is seen by both or by none", async () => {
  await writeBoth("1");
  await untilParted();
  const release = proxy.holdBefore("read_place");
  const reading = read();
  await expect.poll(takeReads).toBe(2);

  const revision = await writeBoth("2");
  release();

  expect(await reading).toEqual({ values: ["2", "2"], revision });
  expect(takeReads(), "it was read anew").toBe(1);
});

test("what expires between the two statements is seen by neither", async () => {
  await untilParted();
  const revision = await writeBoth("1", { seconds: 1n });
  const release = proxy.holdBefore("read_place");
  const reading = read();
  await sleep(1_100);
  release();

  expect(await reading).toEqual({ values: [], revision });
  expect(takeReads()).toBe(2);
});

test("when one of the two is lost, both are read again", async () => {
  const revision = await writeBoth("1");
  await untilParted();
  proxy.cutBefore("read_place");

  expect(await read()).toEqual({ values: ["1", "1"], revision });
});

test("names of different places are read by one statement", async () => {
  const revision = await writeBoth("1");
  await untilParted();
  const elsewhere = { scope, namespace: "elsewhere", key: "first" };
  proxy.takeStatements();

  const reply = await reader.client.call("batchGet", { names: [...names, elsewhere] });

  expect(reply.results.map(({ entry }) => entry?.valueJson ?? "")).toEqual([
    "1",
    ...missing.map(() => ""),
    "1",
    "",
  ]);
  expect(reply.revision).toBe(revision);
  const sent = proxy.takeStatements().filter((statement) => /^(read|settle)_/.test(statement));
  expect(sent).toEqual(["read_entries"]);
});
