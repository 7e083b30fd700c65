import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { englishSidecar } from "./support/english-database.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

/** Entries that one step removes. */
const step = 500;

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginId: string;

beforeAll(async () => {
  database = await testDatabase();
  // What is removed here is removed by DeleteRange.
  server = await testSidecar(database, ["demo", "other"], { sweepIntervalMs: 3_600_000 });
  client = server.client;
  pluginId = server.sidecar.bindings[0]!.pluginId;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let scopes = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `range-${scopes++}` };
});

const keyOf = (n: number) => `key-${String(n).padStart(5, "0")}`;

/** Stores entries with keys `key-00000` and so on, by plain SQL. */
async function fill(count: number): Promise<void> {
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
     select $1, 'run', $2, 'key-' || lpad(n::text, 5, '0'), '1' from generate_series(0, $3::int - 1) n`,
    [pluginId, scope.id, count],
  );
}

async function store(...keys: string[]): Promise<void> {
  await Promise.all(keys.map((key) => client.call("set", { scope, key, valueJson: "1" })));
}

async function keysLeft(place: object = { scope }): Promise<string[]> {
  const { entries } = await client.call("list", {
    scope,
    ...place,
    keysOnly: true,
    pageSize: 1000,
  });
  return entries.map(({ key }) => key);
}

async function revision(): Promise<bigint> {
  return (await client.call("list", { scope })).revision;
}

/** The plugin's counters, and what the table says they should be. */
async function expectExactCounters(): Promise<void> {
  const [row] = await database.query(
    `select r.entries, r.bytes, count(s.id) as real_entries,
            coalesce(sum(plugin_sidecar.entry_bytes(scope_id, namespace, state_key, value_json)), 0)::bigint
              as real_bytes
       from plugin_sidecar.plugin_revisions r left join plugin_sidecar.plugin_state s using (plugin_id)
      where r.plugin_id = $1 group by r.plugin_id`,
    [pluginId],
  );
  expect([row!["entries"], row!["bytes"]]).toEqual([row!["real_entries"], row!["real_bytes"]]);
}

/** A foreign connection that has changed an entry and not committed yet. */
async function holding(key: string): Promise<pg.Client> {
  const holder = new pg.Client(database.connection);
  await holder.connect();
  onTestFinished(() => holder.end());
  await holder.query("begin");
  await holder.query(
    "update plugin_sidecar.plugin_state set value_json = '2' where scope_id = $1 and state_key = $2",
    [scope.id, key],
  );
  return holder;
}

describe("a prefix", () => {
  const keys = [
    "%",
    "%a",
    "_",
    "a",
    "aa",
    "ab",
    "a\u{10ffff}",
    "b",
    "\ud7ff",
    "\ue000",
    "\u{10ffff}",
  ];

  test.each(["", "a", "aa", "%", "_", "\ud7ff", "\u{10ffff}", "absent"])(
    "of %j is taken literally, and its entries removed and counted",
    async (prefix) => {
      await store(...keys);
      const before = await revision();
      const gone = keys.filter((key) => key.startsWith(prefix));
      const reply = await client.call("deleteRange", { scope, prefix });
      expect(reply).toMatchObject({ deleted: BigInt(gone.length) });
      expect(reply.revision).toBe(before + BigInt(gone.length));
      expect(new Set(await keysLeft())).toEqual(new Set(keys.filter((key) => !gone.includes(key))));
      await expectExactCounters();
    },
  );
});

test("only the scope, namespace and plugin asked for are touched", async () => {
  const others = [
    { scope, namespace: "other" },
    { scope: { ...scope, kind: ScopeKind.ISSUE } },
    { scope: { ...scope, id: `${scope.id}0` } },
    { scope: { kind: ScopeKind.INSTANCE } },
  ];
  for (const place of [{ scope }, ...others]) {
    await client.call("set", { ...place, key: "k", valueJson: "1" });
  }
  await server.clients[1]!.call("set", { scope, key: "k", valueJson: "1" });
  expect(await client.call("deleteRange", { scope })).toMatchObject({ deleted: 1n });
  expect(await keysLeft()).toEqual([]);
  for (const place of others) {
    expect(await keysLeft(place)).toEqual(["k"]);
  }
  const { entry } = await server.clients[1]!.call("get", { scope, key: "k" });
  expect(entry).toBeDefined();
});

test("the instance scope, which has no id, is emptied like any other", async () => {
  const place = { scope: { kind: ScopeKind.INSTANCE }, namespace: "emptied" };
  await client.call("set", { ...place, key: "a", valueJson: "1" });
  await client.call("set", { ...place, key: "b", valueJson: "1" });
  const reply = await client.call("deleteRange", { ...place, prefix: "a" });
  expect(reply).toMatchObject({ deleted: 1n });
  expect(await keysLeft(place)).toEqual(["b"]);
});

test("removing nothing succeeds, and takes no revision", async () => {
  await store("a");
  const before = await revision();
  const reply = await client.call("deleteRange", { scope, prefix: "b" });
  expect(reply).toMatchObject({ deleted: 0n, revision: before });
});

test.each([step - 1, step, step + 1, 3 * step + 7])(
  "%d entries are removed in steps, each with a revision of its own",
  async (count) => {
    await fill(count);
    const before = await revision();
    const reply = await client.call("deleteRange", { scope, prefix: "key-" });
    expect(reply).toMatchObject({ deleted: BigInt(count), revision: before + BigInt(count) });
    expect(await revision()).toBe(reply.revision);
    expect(await keysLeft()).toEqual([]);
    await expectExactCounters();
  },
);

test("large values make steps of fewer entries", async () => {
  const valueJson = JSON.stringify("v".repeat(4 * 1024 * 1024 - 2));
  for (let n = 0; n < 10; n++) {
    await client.call("set", { scope, key: keyOf(n), valueJson });
  }
  // Each step takes two; the last waits for this one.
  const holder = await holding(keyOf(9));
  const removal = client.call("deleteRange", { scope });
  await expect.poll(() => keysLeft()).toEqual([keyOf(8), keyOf(9)]);
  await holder.query("rollback");
  expect(await removal).toMatchObject({ deleted: 10n });
  await expectExactCounters();
});

test("an entry whose time is over goes too, but wasn't there and isn't counted", async () => {
  const ttl = { nanos: 1_000_000 };
  await store("a");
  await client.call("set", { scope, key: "b", valueJson: "1", ttl });
  await expect.poll(() => keysLeft()).toEqual(["a"]);
  const before = await revision();
  const reply = await client.call("deleteRange", { scope });
  expect(reply).toMatchObject({ deleted: 1n, revision: before + 2n });
  await expectExactCounters();
});

describe("an entry that another transaction holds", () => {
  test.each([
    ["changes", "commit"],
    ["doesn't change after all", "rollback"],
  ])("is waited for, and removed when that one %s it", async (_, end) => {
    await fill(step + 10);
    const holder = await holding(keyOf(step + 5));
    const removal = client.call("deleteRange", { scope });
    await expect.poll(async () => (await keysLeft()).length).toBe(10);
    await holder.query(end);
    expect(await removal).toMatchObject({ deleted: BigInt(step + 10) });
    expect(await keysLeft()).toEqual([]);
    await expectExactCounters();
  });

  test("for too long makes it UNAVAILABLE; what was removed stays so", async () => {
    await fill(step + 10);
    const holder = await holding(keyOf(step + 5));
    const error = await failure(client.call("deleteRange", { scope }));
    expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
    expect((await keysLeft()).length).toBe(10);
    await holder.query("rollback");
    expect(await client.call("deleteRange", { scope })).toMatchObject({ deleted: 10n });
  });
});

describe("a request_id", () => {
  test("repeated answers the same, and removes nothing that was written since", async () => {
    await fill(step + 10);
    const request = { scope, prefix: "key-", requestId: randomUUID() };
    const first = await client.call("deleteRange", request);
    await store("key-new");
    const second = await client.call("deleteRange", request);
    expect(first).toMatchObject({ deleted: BigInt(step + 10) });
    expect(second).toEqual(first);
    expect(await keysLeft()).toEqual(["key-new"]);
  });

  test("is remembered too when nothing was removed", async () => {
    const request = { scope, requestId: randomUUID() };
    const first = await client.call("deleteRange", request);
    await store("a");
    expect(await client.call("deleteRange", request)).toEqual(first);
    expect(await keysLeft()).toEqual(["a"]);
  });

  test("repeated goes on where a call ended that was given up, and answers the count of both", async () => {
    await fill(2 * step + 10);
    const request = { scope, requestId: randomUUID() };
    const holder = await holding(keyOf(step + 5));
    const giveUp = new AbortController();
    const first = failure(client.call("deleteRange", request, { signal: giveUp.signal }));
    await expect.poll(async () => (await keysLeft())[0]).toBe(keyOf(step));
    giveUp.abort();
    await first;
    await store(keyOf(0));
    await holder.query("commit");
    const second = await client.call("deleteRange", request);
    expect(second).toMatchObject({ deleted: BigInt(2 * step + 10) });
    expect(await keysLeft()).toEqual([keyOf(0)]);
  });

  test("of two calls at once makes one removal that both count", async () => {
    await fill(4 * step);
    const before = await revision();
    const request = { scope, requestId: randomUUID() };
    const [first, second] = await Promise.all([
      client.call("deleteRange", request),
      client.call("deleteRange", request),
    ]);
    expect(first).toMatchObject({ deleted: BigInt(4 * step), revision: before + BigInt(4 * step) });
    expect(second).toEqual(first);
  });

  const reused = { codeName: "INVALID_ARGUMENT", reason: "REQUEST_ID_REUSED" };

  test("of another range is refused", async () => {
    await store("a", "b");
    const requestId = randomUUID();
    await client.call("deleteRange", { scope, prefix: "a", requestId });
    for (const other of [
      { scope, prefix: "b" },
      { scope, namespace: "other", prefix: "a" },
      { scope: { ...scope, kind: ScopeKind.AGENT }, prefix: "a" },
    ]) {
      const error = await failure(client.call("deleteRange", { ...other, requestId }));
      expect(error).toMatchObject(reused);
    }
    expect(await keysLeft()).toEqual(["b"]);
  });

  test("of a Set is refused, and a Set with that of a DeleteRange", async () => {
    const ofSet = randomUUID();
    const ofRange = randomUUID();
    const set = { scope, key: "a", valueJson: "1" };
    await client.call("set", { ...set, requestId: ofSet });
    await client.call("deleteRange", { scope, prefix: "b", requestId: ofRange });
    const errors = [
      await failure(client.call("deleteRange", { scope, requestId: ofSet })),
      await failure(client.call("set", { ...set, requestId: ofRange })),
    ];
    expect(errors).toMatchObject([reused, reused]);
    expect(await keysLeft()).toEqual(["a"]);
  });
});

test("a deadline ends it between two steps", async () => {
  const count = 60 * step;
  await fill(count);
  const error = await failure(client.call("deleteRange", { scope }, { deadlineMs: 50 }));
  expect(error.codeName).toBe("DEADLINE_EXCEEDED");
  await expect.poll(isRemoving, { timeout: 10_000 }).toBe(false);
  const { deleted } = await client.call("deleteRange", { scope });
  expect(deleted).toBeGreaterThan(0n);
  expect(deleted % BigInt(step)).toBe(0n);
});

/** Whether a step has been sent lately. There are a few milliseconds between two. */
async function isRemoving(): Promise<boolean> {
  const found = await database.query(
    `select from pg_stat_activity
      where datname = current_database() and query like '%plugin_sidecar.delete_range(%'
        and query_start > clock_timestamp() - interval '500 ms' and pid <> pg_backend_pid()`,
  );
  return found.length > 0;
}

test("others read pages between two steps", async () => {
  await fill(10 * step);
  const answered: string[] = [];
  const removal = client.call("deleteRange", { scope }).then(() => answered.push("removal"));
  const page = client.call("list", { scope, pageSize: 1 }).then(() => answered.push("page"));
  await Promise.all([removal, page]);
  expect(answered).toEqual(["page", "removal"]);
});

test("ends although a writer keeps adding keys, and removes all that were there all the time", async () => {
  await fill(3 * step);
  let isOver = false;
  const write = async (writer: number) => {
    for (let n = 0; !isOver; n++) {
      await store(`${keyOf((n * 37) % (3 * step))}-${writer}`, keyOf((n * 41) % (3 * step)));
    }
  };
  const writers = [write(0), write(1)];
  const removal = client.call("deleteRange", { scope }).finally(() => {
    isOver = true;
  });
  const { deleted } = await removal;
  await Promise.all(writers);
  expect(deleted).toBeGreaterThanOrEqual(BigInt(3 * step));
  await expectExactCounters();
});

test("connections that break on the way change neither what is removed nor its count", async () => {
  await using proxy = await FaultProxy.before(database.url);
  const { database: config } = configFor(proxy.through(database.url), []);
  await using cut = await testSidecar(database, ["demo"], {
    database: config,
    sweepIntervalMs: 3_600_000,
  });
  const count = 10 * step;
  await fill(count);
  const before = await revision();
  // In turn before a step reaches the database, and after it was done.
  let cuts = 0;
  const cutNext = () => {
    if (cuts < 8) {
      const at = cuts % 2 === 0 ? "cutBefore" : "cutAfter";
      proxy[at]("delete_range", () => {
        cuts += 1;
        proxy.cut();
        cutNext();
      });
    }
  };
  cutNext();
  const reply = await cut.client.call("deleteRange", { scope });
  expect(reply).toMatchObject({ deleted: BigInt(count), revision: before + BigInt(count) });
  expect(cuts).toBe(8);
  expect(await keysLeft()).toEqual([]);
});

test.each([
  ["scope", {}],
  ["scope.id", { scope: { kind: ScopeKind.RUN } }],
  ["prefix", { scope: { kind: ScopeKind.INSTANCE }, prefix: "\0" }],
  ["prefix", { scope: { kind: ScopeKind.INSTANCE }, prefix: "p".repeat(1025) }],
  ["request_id", { scope: { kind: ScopeKind.INSTANCE }, requestId: "1" }],
])("a bad %s is refused", async (field, request) => {
  const error = await failure(client.call("deleteRange", request));
  expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", fields: [field] });
});

test("a database that sorts as English does loses just the keys with the prefix", async () => {
  await using english = await englishSidecar();
  const keys = ["A", "B", "a", "aB", "ab", "a-b", "b", "Ä"];
  for (const key of keys) {
    await english.client.call("set", { scope, key, valueJson: "1" });
  }
  const reply = await english.client.call("deleteRange", { scope, prefix: "a" });
  const { entries } = await english.client.call("list", { scope });
  expect(reply).toMatchObject({ deleted: 4n, revision: 12n });
  expect(entries.map(({ key }) => key)).toEqual(["A", "B", "b", "Ä"]);
});
