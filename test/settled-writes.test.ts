import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let proxy: FaultProxy;
let server: TestSidecar;
let client: TestClient;

const databaseTimeoutMs = 3_000;

beforeAll(async () => {
  database = await testDatabase();
  proxy = await FaultProxy.before(database.url);
  const { database: config } = configFor(proxy.through(database.url), []);
  server = await testSidecar(database, ["demo"], { database: config, databaseTimeoutMs });
  client = server.client;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let name: { scope: { kind: ScopeKind; id: string }; key: string };
let before: bigint;
let tests = 0;

beforeEach(async () => {
  await expect.poll(() => healthOf(server.address), { timeout: 10_000 }).toBe("SERVING");
  name = { scope: { kind: ScopeKind.RUN, id: `${tests++}` }, key: "k" };
  before = (await client.call("set", { ...name, valueJson: "10" })).revision;
  proxy.takeStatements();
});

const change = { case: "increment" as const, value: {} };
const increment = () => client.call("update", { ...name, change });

/** What was written, and asked about, since the test began. */
const statements = () =>
  proxy.takeStatements().filter((text) => /^(write_entries|set_entries|settle_batch)$/.test(text));

/** What is in the table, and what the plugin's revision is above the one before. */
async function stored() {
  const [row] = await database.query<{ value: string; revision: string }>(
    `select s.value_json::text as value, r.revision
       from plugin_sidecar.plugin_state s join plugin_sidecar.plugin_revisions r using (plugin_id)
      where s.scope_id = $1 and s.state_key = 'k'`,
    [name.scope.id],
  );
  return { value: row?.value, revisions: Number(BigInt(row?.revision ?? 0) - before) };
}

/** Every write, with what it answers, and the statement that does it if it isn't write_entries. */
const writes: Record<string, readonly [() => Promise<unknown>, () => object, string?]> = {
  "an increment": [increment, () => ({ valueJson: "11", created: false, changed: true })],
  "a plain set": [
    () => client.call("set", { ...name, valueJson: "11" }),
    () => ({ created: false }),
    "set_entries",
  ],
  "a set": [
    () => client.call("set", { ...name, valueJson: '"new"', returnPrevious: true }),
    () => ({ created: false, previous: { valueJson: "10", revision: before } }),
  ],
  "a delete": [() => client.call("delete", name), () => ({ existed: true })],
  "a Transact": [
    () =>
      client.call("transact", {
        operations: [{ operation: { case: "update", value: { ...name, change } } }],
        checks: [{ ...name, condition: { case: "ifRevision", value: before } }],
      }),
    () => ({ results: [{ result: { case: "update", value: { valueJson: "11" } } }] }),
  ],
};

describe.each(Object.entries(writes))(
  "%s without a request_id",
  (_, [write, answer, statement]) => {
    const applies = statement ?? "write_entries";

    test("that was committed as the connection broke is answered truly, and not done again", async () => {
      proxy.cutAfter(applies);
      const reply = await write();
      expect(reply).toMatchObject({ ...answer(), revision: before + 1n });
      expect(statements().slice(0, 2)).toEqual([applies, "settle_batch"]);
      const { revision } = await client.call("get", name);
      expect(revision).toBe(before + 1n);
    });

    test("that never came to the database as the connection broke is sent again, and done once", async () => {
      proxy.cutBefore(applies);
      const reply = await write();
      expect(reply).toMatchObject({ ...answer(), revision: before + 1n });
      expect(statements()).toEqual([applies, "settle_batch", applies]);
      const { revision } = await client.call("get", name);
      expect(revision).toBe(before + 1n);
    });
  },
);

test("the question itself may be lost, and is asked again", async () => {
  proxy.cutAfter("write_entries", () => {
    proxy.cut();
    proxy.cutAfter("settle_batch");
  });
  expect(await increment()).toMatchObject({ valueJson: "11", revision: before + 1n });
  expect(await stored()).toEqual({ value: "11", revisions: 1 });
  expect(statements()).toEqual(["write_entries", "settle_batch", "settle_batch"]);
});

test("a write that changes nothing is answered truly too", async () => {
  proxy.cutAfter("write_entries");
  const reply = await client.call("delete", { ...name, key: "missing" });
  expect(reply).toMatchObject({ existed: false, revision: before });
  proxy.cutAfter("write_entries");
  const condition = { case: "ifAbsent" as const, value: true };
  const error = await failure(client.call("set", { ...name, valueJson: "1", condition }));
  expect(error).toMatchObject({ reason: "ENTRY_EXISTS", metadata: { current: `${before}` } });
});

test("a write still on its way in the database when it was given up isn't done beside its repetition", async () => {
  const held = await holdWrites(database);
  const reply = increment();
  await held.areWaiting(1);
  proxy.cut();
  // The first one doesn't notice that its client is gone; the second one waits behind it.
  await held.areWaiting(2);
  await held.release();
  expect(await reply).toMatchObject({ valueJson: "11", revision: before + 1n });
  expect(await stored()).toEqual({ value: "11", revisions: 1 });
});

test("a write that takes its connection with it each time is given up, and nothing is written", async () => {
  let cuts = 0;
  const again = () => {
    cuts += 1;
    proxy.cutBefore("write_entries", again);
    proxy.cut();
  };
  proxy.cutBefore("write_entries", again);
  const error = await failure(increment());
  proxy.spare();
  expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
  expect(error.retryAfter).toBe(true);
  expect(cuts).toBe(4);
  expect(await stored()).toEqual({ value: "10", revisions: 0 });
});

test("300 increments through a network that breaks again and again are each done once, and answered truly", async () => {
  let isOver = false;
  const breakAgain = async () => {
    for (let n = 0; !isOver; n++) {
      await new Promise((resolve) => setTimeout(resolve, 30));
      n % 3 === 0 ? proxy.cut() : proxy.cutAfter("write_entries");
    }
  };
  const breaking = breakAgain();
  const answers: { valueJson: string; revision: bigint }[] = [];
  const worker = async () => {
    for (let n = 0; n < 30; n++) {
      const answer = await increment().catch((error) => {
        // Only these two say that nothing was written.
        expect(error).toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
      });
      answers.push(...(answer === undefined ? [] : [answer]));
    }
  };
  await Promise.all(Array.from({ length: 10 }, worker));
  isOver = true;
  await breaking;
  proxy.spare();
  answers.sort((a, b) => Number(a.revision - b.revision));
  expect(answers.map(({ valueJson, revision }) => [Number(valueJson), revision])).toEqual(
    answers.map((_, n) => [11 + n, before + BigInt(n + 1)]),
  );
  expect(answers.length).toBeGreaterThan(200);
  expect(await stored()).toEqual({
    value: `${10 + answers.length}`,
    revisions: answers.length,
  });
});

test("when the database doesn't come back in time, the outcome is said to be unknown", async () => {
  proxy.cutAfter("write_entries", () => void proxy.close());
  const started = performance.now();
  const error = await failure(increment());
  const tookMs = performance.now() - started;
  await proxy.open();
  expect(error).toMatchObject({
    codeName: "UNKNOWN",
    reason: "OUTCOME_UNKNOWN",
    retryAfter: false,
  });
  expect(tookMs).toBeGreaterThan(databaseTimeoutMs * 0.9);
  expect(tookMs).toBeLessThan(databaseTimeoutMs + 5_000);
  expect(await stored()).toEqual({ value: "11", revisions: 1 });
});

test("writes that come while another one's outcome is in doubt don't wait for it: they were never sent", async () => {
  proxy.cutAfter("write_entries", () => void proxy.close());
  const inDoubt = failure(increment());
  await expect.poll(() => healthOf(server.address)).toBe("NOT_SERVING");
  const started = performance.now();
  const error = await failure(increment());
  expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
  expect(performance.now() - started).toBeLessThan(databaseTimeoutMs / 2);
  expect(await inDoubt).toMatchObject({ codeName: "UNKNOWN", reason: "OUTCOME_UNKNOWN" });
  await proxy.open();
  expect(await stored()).toEqual({ value: "11", revisions: 1 });
});

test("a write into a network that fell silent is said to be of unknown outcome, and can be repeated by its request_id", async () => {
  const requestId = "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77";
  const update = () => client.call("update", { ...name, change, requestId });
  proxy.cutAfter("write_entries", () => proxy.silence());
  const error = await failure(update());
  expect(error).toMatchObject({ codeName: "UNKNOWN", reason: "OUTCOME_UNKNOWN" });
  proxy.resume();
  await expect.poll(() => healthOf(server.address), { timeout: 10_000 }).toBe("SERVING");
  expect(await update()).toMatchObject({ valueJson: "11", revision: before + 1n });
  expect(await stored()).toEqual({ value: "11", revisions: 1 });
});
