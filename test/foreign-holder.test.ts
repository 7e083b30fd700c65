import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { foreignWriter } from "./support/foreign-writer.ts";
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

beforeEach(async () => {
  scope = { kind: ScopeKind.RUN, id: `${tests++}` };
});

const named = (key: string) => ({ scope, namespace: "", key });
const set = (key: string, valueJson: string) =>
  client.call("set", { ...named(key), valueJson, returnPrevious: true });

/** Writes an entry in a transaction that stays open. */
async function holdEntry(key: string, valueJson: string) {
  const holder = new pg.Client(database.connection);
  holder.on("error", () => undefined);
  await holder.connect();
  onTestFinished(() => holder.end());
  await holder.query("begin");
  const pluginId = server.sidecar.bindings[0]!.pluginId;
  const query = holder.query.bind(holder) as pg.Pool["query"];
  await foreignWriter(query, pluginId).upsert(named(key), valueJson);
  return { end: (how: "commit" | "rollback") => holder.query(how) };
}

const isPending = async (call: Promise<unknown>) =>
  (await Promise.race([call, Promise.resolve("pending")])) === "pending";

test.each(["set", "new"])(
  "a write of an entry that a foreign transaction holds waits for it (%s), and others don't wait",
  async (kind) => {
    if (kind === "set") {
      await set("held", "1");
    }
    const holder = await holdEntry("held", '"foreign"');
    const held = set("held", '"sidecar"');
    for (let n = 0; n < 40; n++) {
      await Promise.all([
        set("a", `${n}`),
        set(`new ${n}`, "1"),
        client.call("get", named("held")),
      ]);
    }
    const wasPending = await isPending(held);
    await holder.end("commit");
    expect(await held).toMatchObject({ created: false, previous: { valueJson: '"foreign"' } });
    expect(wasPending).toBe(true);
  },
);

test("a write of an entry that a foreign transaction held and gave back finds it as it was", async () => {
  const holder = await holdEntry("held", '"foreign"');
  const held = set("held", '"sidecar"');
  await set("a", "1");
  await holder.end("rollback");
  expect(await held).toMatchObject({ created: true });
});

test("a Transact with one held entry waits whole, and does nothing of it before", async () => {
  await set("held", "1");
  const holder = await holdEntry("held", "2");
  const operations = ["a", "held", "b"].map((key) => ({
    operation: { case: "set" as const, value: { ...named(key), valueJson: '"together"' } },
  }));
  const held = client.call("transact", { operations });
  await set("c", "1");
  const meanwhile = await client.call("list", { scope });
  await holder.end("commit");
  const { revision } = await held;
  const { entries } = await client.call("list", { scope });
  expect(meanwhile.entries.map(({ key, valueJson }) => key + valueJson)).toEqual(["c1", "held1"]);
  expect(entries.map((entry) => [entry.key, revision - entry.revision])).toEqual([
    ["a", 2n],
    ["b", 0n],
    ["c", 4n],
    ["held", 1n],
  ]);
});

test("when the holder doesn't end, the write is UNAVAILABLE in the end, and nothing was written", async () => {
  await set("held", "1");
  const holder = await holdEntry("held", "2");
  const error = await failure(set("held", "3"));
  await holder.end("rollback");
  expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
  expect(error.retryAfter).toBe(true);
  expect((await client.call("get", named("held"))).entry?.valueJson).toBe("1");
});
