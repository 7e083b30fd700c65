import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type { TestClient } from "./support/client.ts";
import { expectCounted, settle } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { foreignWriter } from "./support/foreign-writer.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

// External writers in transactions of every kind, beside a sidecar of the same plugin that reads and writes all the
// time: no trigger of the sidecar's makes them wait or fail.

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginIds: string[];

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database, ["demo", "other"]);
  client = server.client;
  pluginIds = server.sidecar.bindings.map((binding) => binding.pluginId);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let tests = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `${tests++}` };
});

const named = (key: string) => ({ scope, namespace: "", key });
const revisionOf = async (key: string) => (await client.call("get", named(key))).entry?.revision;

/** A connection of another program's, which writes for one of the plugins. */
async function connected() {
  const connection = new pg.Client(database.connection);
  connection.on("error", () => undefined);
  await connection.connect();
  onTestFinished(() => connection.end());
  const query = connection.query.bind(connection) as pg.Pool["query"];
  const [demo, other] = pluginIds.map((id) => foreignWriter(query, id));
  return { query, demo: demo!, other: other! };
}

/** Reads and writes through a sidecar until the work is done. */
async function beside(work: Promise<unknown>, by: TestClient, keys: readonly string[]) {
  let isOver = false;
  const end = () => {
    isOver = true;
  };
  void work.then(end, end);
  for (let n = 0; !isOver; n++) {
    await Promise.all([
      by.call("set", { ...named(`sidecar ${n % 5}`), valueJson: `${n}` }),
      by.call("get", named(keys[n % keys.length]!)),
      by.call("list", { scope }),
    ]);
  }
}

const levels = ["repeatable read", "serializable"];

describe.each(levels)("an external transaction at %s", (level) => {
  test("that writes beside a sidecar gets no error", async () => {
    const host = await connected();
    const keys = ["a", "b", "c"];
    const work = async () => {
      for (let n = 0; n < 60; n++) {
        await host.query(`begin isolation level ${level}`);
        await host.query(
          "select * from plugin_sidecar.plugin_state where scope_id = $1 and state_key = any ($2)",
          [scope.id, keys],
        );
        await host.demo.upsert(named(keys[n % 3]!), `${n}`);
        await host.demo.upsert(named(keys[(n + 1) % 3]!), `${n}`);
        await (n % 4 === 0 && host.demo.delete(named(keys[(n + 2) % 3]!)));
        await host.query("commit");
      }
    };
    const working = work();
    await beside(working, client, keys);
    await expect(working).resolves.toBeUndefined();
    await expectCounted(database, pluginIds[0]!);
  });

  test("writes a row that a sidecar has read since the transaction began", async () => {
    const [host, before] = [await connected(), await connected()];
    await before.demo.upsert(named("a"), "1");
    await host.query(`begin isolation level ${level}`);
    await host.query("select from plugin_sidecar.plugin_state where scope_id = $1", [scope.id]);
    const first = await revisionOf("a");
    await host.demo.upsert(named("a"), "2");
    await host.query("commit");
    expect(await revisionOf("a")).toBe(first! + 1n);
  });
});

test("giving an external write its revision leaves the host's row as it is, in its place", async () => {
  const host = await connected();
  await host.demo.upsert(named("a"), "1");
  const row = () =>
    database.query(
      "select ctid, xmin, xmax, * from plugin_sidecar.plugin_state where scope_id = $1",
      [scope.id],
    );
  const before = await row();
  const revision = await revisionOf("a");
  await client.call("set", { ...named("b"), valueJson: "1" });
  expect(revision).toBeGreaterThan(0n);
  expect((await row()).filter((one) => one["state_key"] === "a")).toEqual(before);
});

test("transactions that write for two plugins in opposite orders don't wait for each other", async () => {
  const hosts = await Promise.all(Array.from({ length: 12 }, connected));
  const work = Promise.all(
    hosts.map(async (host, number) => {
      const writers = number % 2 === 0 ? [host.demo, host.other] : [host.other, host.demo];
      for (let n = 0; n < 20; n++) {
        await host.query("begin");
        for (const writer of writers) {
          await writer.upsert(named(`${number}`), `${n}`);
          await writer.upsert(named(`${number} again`), `${n}`);
        }
        await host.query("commit");
      }
    }),
  );
  await Promise.all([
    work,
    ...server.clients.map((by) => beside(work, by, ["0", "1 again", "11"])),
  ]);
  for (const id of pluginIds) {
    await expectCounted(database, id);
  }
});

describe("while a transaction is open that has written,", () => {
  const ways: Record<string, readonly [prepare: string | undefined, commit: string]> = {
    "as any": [undefined, "commit"],
    prepared: ["prepare transaction 'held'", "commit prepared 'held'"],
  };

  test.each(Object.keys(ways))(
    "%s, others' later writes are numbered, and its own when it ends",
    async (way) => {
      const [host, other] = [await connected(), await connected()];
      const [prepare, commit] = ways[way]!;
      const { revision: before } = await client.call("list", { scope });
      await host.query("begin");
      await host.demo.upsert(named("held"), "1");
      if (prepare !== undefined) {
        await host.query(prepare);
      }
      const seen: (bigint | undefined)[] = [];
      for (const key of ["a", "b"]) {
        await other.demo.upsert(named(key), "1");
        seen.push(await revisionOf(key), await revisionOf("held"));
        const set = await client.call("set", { ...named("sidecar"), valueJson: "1" });
        seen.push(set.revision);
      }
      await host.query(commit);
      seen.push(await revisionOf("held"));
      const numbers = seen.map((revision) => revision && Number(revision - before));
      expect(numbers).toEqual([1, undefined, 2, 3, undefined, 4, 5]);
    },
  );

  test("and of many that end in another order than they began, none is lost", async () => {
    const hosts = await Promise.all(Array.from({ length: 10 }, connected));
    const { revision: before } = await client.call("list", { scope });
    for (const [number, host] of hosts.entries()) {
      await host.query("begin");
      await host.demo.upsert(named(`${number}`), "1");
      await client.call("get", named("0"));
    }
    for (const [turn, number] of [7, 2, 9, 0, 4, 1, 8, 3, 6, 5].entries()) {
      await hosts[number]!.demo.upsert(named(`${number} again`), "1");
      await hosts[number]!.query(number === 4 ? "rollback" : "commit");
      turn % 3 === 0 && (await client.call("get", named("0")));
    }
    const { revision, entries } = await client.call("list", { scope });
    expect(revision - before).toBe(18n);
    expect(entries).toHaveLength(18);
    await expectCounted(database, pluginIds[0]!);
  });

  test("a sidecar that starts meanwhile numbers its writes when it ends", async () => {
    const host = await connected();
    await host.query("begin");
    await host.demo.upsert(named("held"), "1");
    await settle(database, pluginIds[0]!);
    await using later = await testSidecar(database, ["demo"]);
    const during = await later.client.call("get", named("held"));
    await host.query("commit");
    const { entry } = await later.client.call("get", named("held"));
    expect(during.entry).toBeUndefined();
    expect(entry?.revision).toBe(during.revision + 1n);
  });
});
