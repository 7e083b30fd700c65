import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type Entry, ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure, type TestClient } from "./support/client.ts";
import { settle } from "./support/counters.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { foreignWriter } from "./support/foreign-writer.ts";
import { healthOf } from "./support/health.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

/** Of a sidecar that never sweeps while a test runs. */
const never = { sweepIntervalMs: 3_600_000 };
const soon = { nanos: 50_000_000 };
const hour = { seconds: 3600n };
const day = { seconds: 86_400n };

let database: TestDatabase;
let server: TestSidecar;
let client: TestClient;
let pluginId: string;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database, ["demo"], never);
  client = server.client;
  pluginId = server.sidecar.bindings[0]!.pluginId;
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

let scope: { kind: ScopeKind; id: string };
let name: { scope: { kind: ScopeKind; id: string }; key: string };
let tests = 0;

beforeEach(() => {
  scope = { kind: ScopeKind.RUN, id: `expiry-${tests++}` };
  name = { scope, key: "k" };
});

async function get(): Promise<Entry | undefined> {
  return (await client.call("get", name)).entry;
}

/** How long the entry lives from its last write, in seconds; undefined when it stays. */
async function ttlSeconds(): Promise<number | undefined> {
  const entry = await get();
  const { updateTime, expireTime } = entry!;
  if (expireTime === undefined) {
    return undefined;
  }
  const nanos = expireTime.nanos - updateTime!.nanos;
  return Number(expireTime.seconds - updateTime!.seconds) + nanos / 1e9;
}

const set = (options: object = {}) => client.call("set", { ...name, valueJson: "1", ...options });
const increment = (options: object = {}) =>
  client.call("update", { ...name, change: { case: "increment", value: {} }, ...options });

/** An entry whose time is over, still in the table. */
async function expired(): Promise<void> {
  await set({ ttl: soon, valueJson: '"expired"' });
  await expect.poll(get, { interval: 10 }).toBeUndefined();
  expect(await rowsIn(database, scope.id)).toBe(1);
}

async function rowsIn({ query }: TestDatabase, scopeId: string): Promise<number> {
  const [row] = await query<{ count: string }>(
    "select count(*) from plugin_sidecar.plugin_state where scope_id = $1",
    [scopeId],
  );
  return Number(row!.count);
}

describe("a time to live", () => {
  test("counts from the write to the microsecond, and its end is told with the entry", async () => {
    await set({ ttl: { seconds: 90n, nanos: 1_000 } });
    expect(await ttlSeconds()).toBeCloseTo(90.000001, 9);
    const { entries } = await client.call("list", { scope });
    const { results } = await client.call("batchGet", { names: [name] });
    const { previous } = await set({ returnPrevious: true });
    const entry = { ...entries[0]! };
    expect(results[0]!.entry).toEqual(entry);
    expect(previous).toEqual(entry);
  });

  test("ends with a Set that gives none", async () => {
    await set({ ttl: hour });
    await set();
    expect(await ttlSeconds()).toBeUndefined();
  });

  test("is replaced by that of a later Set", async () => {
    await set({ ttl: hour });
    await set({ ttl: day });
    expect(await ttlSeconds()).toBe(86_400);
  });

  test("stays as it is with keep_ttl: the same end, not the same time from now", async () => {
    await set({ ttl: hour });
    const first = (await get())?.expireTime;
    await set({ keepTtl: true });
    expect((await get())?.expireTime).toEqual(first);
    await set({ keepTtl: true, ttl: day });
    expect((await get())?.expireTime).toEqual(first);
  });

  test("with keep_ttl counts for an entry that is new or had none", async () => {
    await set({ keepTtl: true });
    expect(await ttlSeconds()).toBeUndefined();
    await set({ keepTtl: true, ttl: hour });
    expect(await ttlSeconds()).toBe(3600);
    await client.call("delete", name);
    await set({ keepTtl: true, ttl: day });
    expect(await ttlSeconds()).toBe(86_400);
  });

  test("isn't kept from an entry whose time was over", async () => {
    await expired();
    await set({ keepTtl: true });
    expect(await ttlSeconds()).toBeUndefined();
  });

  test("stays as it is with an Update, unless that gives one", async () => {
    await set({ ttl: hour });
    const first = (await get())?.expireTime;
    await increment();
    await increment({ keepTtl: true });
    await increment({ keepTtl: true, ttl: day });
    expect((await get())?.expireTime).toEqual(first);
    await increment({ ttl: day });
    expect(await ttlSeconds()).toBe(86_400);
  });

  test("of an Update with keep_ttl ends a fixed time after the first one", async () => {
    await increment({ keepTtl: true, ttl: hour });
    const first = (await get())?.expireTime;
    await increment({ keepTtl: true, ttl: hour });
    expect(await get()).toMatchObject({ valueJson: "2", expireTime: first });
  });

  test("is ended by another program's write, which knows of none", async () => {
    await set({ ttl: hour });
    await foreignWriter(plainSql(database), pluginId).upsert({ ...name, namespace: "" }, "2");
    expect(await get()).toMatchObject({ valueJson: "2" });
    expect(await ttlSeconds()).toBeUndefined();
  });

  test.each([
    ["none", {}],
    ["a negative one", { seconds: -1n }],
    ["one over 100 years", { seconds: 101n * 365n * 86_400n }],
    ["one of two signs", { seconds: 1n, nanos: -1 }],
  ])("of %s is refused", async (_, ttl) => {
    const error = await failure(set({ ttl }));
    expect(error).toMatchObject({ codeName: "INVALID_ARGUMENT", fields: ["ttl"] });
  });
});

/** Plain SQL, as the foreign writer takes it. */
function plainSql({ connection }: TestDatabase): pg.Pool["query"] {
  const pool = new pg.Pool({ ...connection, max: 4 });
  onTestFinished(() => pool.end());
  return pool.query.bind(pool);
}

describe("an entry whose time is over, though still in the table,", () => {
  beforeEach(expired);

  test("isn't there for Get, BatchGet, List and ListScopes", async () => {
    const [single, batch, list, scopes] = await Promise.all([
      client.call("get", name),
      client.call("batchGet", { names: [name, { ...name, key: "never" }] }),
      client.call("list", { scope }),
      client.call("listScopes", { kind: ScopeKind.RUN, pageSize: 1000 }),
    ]);
    expect(single.entry).toBeUndefined();
    expect(batch.results.map(({ entry }) => entry)).toEqual([undefined, undefined]);
    expect(list).toMatchObject({ entries: [], nextPageToken: "" });
    expect(scopes.scopes.map((place) => place.scope!.id)).not.toContain(scope.id);
  });

  test("isn't there for Delete, which takes no revision", async () => {
    const { revision } = await client.call("get", name);
    const reply = await client.call("delete", { ...name, returnPrevious: true });
    expect(reply).toMatchObject({ existed: false, revision });
    expect(reply.previous).toBeUndefined();
  });

  test("is made anew by Set, with a time of its own", async () => {
    const reply = await set({ returnPrevious: true });
    expect(reply.created).toBe(true);
    expect(reply.previous).toBeUndefined();
    const entry = await get();
    expect(entry).toMatchObject({ valueJson: "1", revision: reply.revision });
    expect(entry!.createTime).toEqual(entry!.updateTime);
    expect(entry!.expireTime).toBeUndefined();
  });

  test("is absent to conditions", async () => {
    const failures = [
      await failure(set({ condition: { case: "ifPresent", value: true } })),
      await failure(set({ condition: { case: "ifRevision", value: 1n } })),
    ];
    expect(failures).toMatchObject([{ reason: "ENTRY_ABSENT" }, { reason: "REVISION_MISMATCH" }]);
    const reply = await set({ condition: { case: "ifAbsent", value: true } });
    expect(reply.created).toBe(true);
  });

  test("is absent to the checks of a Transact", async () => {
    const transact = (check: "ifAbsent" | "ifPresent") =>
      client.call("transact", { checks: [{ ...name, condition: { case: check, value: true } }] });
    expect(await failure(transact("ifPresent"))).toMatchObject({ reason: "CHECKS_FAILED" });
    await transact("ifAbsent");
  });

  test("counts as none for an Update", async () => {
    const reply = await increment({ returnPrevious: true });
    expect(reply).toMatchObject({ created: true, valueJson: "1" });
    expect(reply.previous).toBeUndefined();
    expect(await ttlSeconds()).toBeUndefined();
  });

  test("is made anew by another program's upsert", async () => {
    await foreignWriter(plainSql(database), pluginId).upsert({ ...name, namespace: "" }, "2");
    expect((await get())?.valueJson).toBe("2");
  });
});

test("at the moment it ends, an entry goes from every RPC at once", async () => {
  await set({ ttl: soon });
  for (let isThere = true; isThere; ) {
    // Calls after one another: once one of them doesn't see it, none does any more.
    const seen = [
      (await get()) !== undefined,
      (await client.call("list", { scope })).entries.length > 0,
      (await client.call("batchGet", { names: [name] })).results[0]!.entry !== undefined,
    ];
    expect(seen).toEqual([...seen].sort().reverse());
    isThere = seen.at(-1) === true;
  }
});

describe("the sweep", () => {
  let database: TestDatabase;
  let sidecar: TestSidecar;
  let client: TestClient;
  let pluginIds: readonly string[];

  beforeAll(async () => {
    database = await testDatabase();
    sidecar = await testSidecar(database, ["demo", "other"], { sweepIntervalMs: 20 });
    client = sidecar.client;
    pluginIds = sidecar.sidecar.bindings.map((binding) => binding.pluginId);
  });

  afterAll(async () => {
    await sidecar[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
  });

  const setIn = (by: TestClient, key: string, options: object = {}) =>
    by.call("set", { scope, key, valueJson: '"value"', ...options });
  const rows = () => rowsIn(database, scope.id);
  const revisionOf = async () => (await client.call("get", name)).revision;

  /** Entries with numbers for keys, whose time is over already. */
  async function fillExpired(count: number, plugin = pluginIds[0], prefix = ""): Promise<void> {
    await database.query(
      `begin;
       set local plugin_sidecar.writer = 'sidecar';
       with added as (
         insert into plugin_sidecar.plugin_state
                (plugin_id, scope_kind, scope_id, state_key, value_json, sidecar_expires_at)
         select '${plugin}', 'run', '${scope.id}', '${prefix}' || case when '${prefix}' = '' then n::text else '' end, '1', now() - n * interval '1 second'
           from generate_series(1, ${count}) n
         on conflict do nothing
         returning plugin_sidecar.entry_bytes(scope_id, namespace, state_key, value_json) as bytes)
       update plugin_sidecar.plugin_revisions
          set entries = entries + (select count(*) from added), bytes = bytes + (select coalesce(sum(bytes), 0) from added)
        where plugin_id = '${plugin}';
       commit`,
    );
  }

  async function expectExactCounters(): Promise<void> {
    for (const id of pluginIds) {
      await settle(database, id);
    }
    const found = await database.query(
      `select r.entries, r.bytes, count(s.id) as real_entries,
              coalesce(sum(plugin_sidecar.entry_bytes(scope_id, namespace, state_key, value_json)), 0)::bigint
                as real_bytes
         from plugin_sidecar.plugin_revisions r left join plugin_sidecar.plugin_state s using (plugin_id)
        group by r.plugin_id`,
    );
    for (const row of found) {
      expect([row["entries"], row["bytes"]]).toEqual([row["real_entries"], row["real_bytes"]]);
    }
  }

  /** A connection of another program's, ended with the test. */
  async function connected(): Promise<pg.Client> {
    const other = new pg.Client(database.connection);
    other.on("error", () => undefined);
    await other.connect();
    onTestFinished(() => other.end());
    return other;
  }

  test("removes what is over, with a revision for each, and nothing else", async () => {
    await setIn(client, "stays");
    await setIn(client, "lives", { ttl: day });
    const { revision } = await setIn(client, "goes", { ttl: soon });
    await expect.poll(rows).toBe(2);
    await expect.poll(revisionOf).toBe(revision + 1n);
    await expectExactCounters();
    const { entries } = await client.call("list", { scope });
    expect(entries.map(({ key }) => key)).toEqual(["lives", "stays"]);
  });

  test("removes much in steps that follow one another, of each plugin", async () => {
    const before = await revisionOf();
    await fillExpired(5_000);
    await fillExpired(3_000, pluginIds[1]);
    await expect.poll(rows, { timeout: 10_000 }).toBe(0);
    expect(await revisionOf()).toBe(before + 5_000n);
    await expectExactCounters();
  });

  test("removes large values in small steps", async () => {
    const valueJson = JSON.stringify("v".repeat(4 * 1024 * 1024 - 2));
    for (let n = 0; n < 10; n++) {
      await setIn(client, `large-${n}`, { valueJson, ttl: hour });
    }
    const other = await connected();
    await other.query("begin; set local plugin_sidecar.writer = 'sidecar'");
    const { rows: steps } = await other.query(
      `select r.entries, r.more
         from (select clock_timestamp() + interval '2 hours' as now) later,
              plugin_sidecar.remove_expired($1, later.now, 1000, 16 * 1024 * 1024) r`,
      [pluginIds[0]],
    );
    await other.query("rollback");
    expect(steps).toEqual([{ entries: "4", more: true }]);
  });

  /** Waits until the sweep has gone over everything that is over by now. */
  async function swept(): Promise<void> {
    await fillExpired(1, pluginIds[0], "canary");
    await expect.poll(() => keyExists("canary")).toBe(false);
  }

  async function keyExists(key: string): Promise<boolean> {
    const found = await database.query(
      "select from plugin_sidecar.plugin_state where scope_id = $1 and state_key = $2",
      [scope.id, key],
    );
    return found.length > 0;
  }

  const upsert = (host: pg.Client) =>
    foreignWriter(host.query.bind(host), pluginIds[0]!).upsert(
      { scope, namespace: "", key: "k" },
      '"renewed"',
    );
  const prolong = (host: pg.Client) =>
    host.query(
      `update plugin_sidecar.plugin_state
          set sidecar_expires_at = now() + interval '1 hour'
        where scope_id = $1 and state_key = 'k'`,
      [scope.id],
    );

  test.each([
    ["another program's upsert", "", upsert],
    ["another sidecar", "set local plugin_sidecar.writer = 'sidecar'", prolong],
  ])("leaves an entry that is being renewed by %s, and waits for nobody", async (_, how, renew) => {
    const host = await connected();
    await host.query(`begin; ${how}`);
    await setIn(client, "k", { ttl: { seconds: 1n } });
    await renew(host);
    await expect.poll(current).toBeUndefined();
    await swept();
    expect(await keyExists("k")).toBe(true);
    await host.query("commit");
    await swept();
    expect(await current()).toBeDefined();
    await expectExactCounters();
  });

  const current = async () => (await client.call("get", name)).entry;

  test("never takes an entry that was renewed, however close to its end", async () => {
    const byHost = foreignWriter(plainSql(database), pluginIds[0]!);
    const renewing = Array.from({ length: 200 }, async (_, n) => {
      const key = `race-${n}`;
      const ttlMs = 5 + (n % 40);
      await setIn(client, key, { ttl: { nanos: ttlMs * 1_000_000 } });
      await sleep(ttlMs + (n % 7) * 4 - 12);
      await (n % 2 === 0
        ? setIn(client, key)
        : byHost.upsert({ scope, namespace: "", key }, '"value"'));
    });
    await Promise.all(renewing);
    await swept();
    const { entries } = await client.call("list", { scope, pageSize: 1000 });
    expect(entries.length).toBe(200);
    await expectExactCounters();
  });

  test("holds up one plugin at a time: another one may hold the counter of the next", async () => {
    const host = await connected();
    const [demo, other] = pluginIds.map((id) => foreignWriter(host.query.bind(host), id));
    const place = { scope, namespace: "", key: "host" };
    await host.query("begin");
    await other!.upsert(place, "1");
    // As another sidecar would: its write is numbered now, and the counter held until the end.
    await host.query("select plugin_sidecar.settle_external_writes($1, true)", [pluginIds[1]]);
    await fillExpired(20);
    const rowsOfDemo = async () =>
      (
        await database.query(
          "select from plugin_sidecar.plugin_state where plugin_id = $1 and scope_id = $2",
          [pluginIds[0], scope.id],
        )
      ).length;
    await expect.poll(rowsOfDemo).toBe(0);
    await demo!.upsert(place, "1");
    await host.query("commit");
    await expectExactCounters();
  });

  test("is one sidecar's at a time, and another's when that one's connection is gone", async () => {
    const busy = await connected();
    await busy.query("select pg_advisory_lock(1886545267, hashtext($1))", [pluginIds[0]]);
    await fillExpired(3);
    await fillExpired(3, pluginIds[1]);
    await expect.poll(rows).toBe(3);
    const [{ pid }] = (await busy.query("select pg_backend_pid() as pid")).rows;
    await database.query("select pg_terminate_backend($1)", [pid]);
    await expect.poll(rows).toBe(0);
  });

  test("forgets requests and batches in their time", async () => {
    const bounds = {
      maxValueBytes: 1024,
      rememberRequestsMs: 50,
      quotaEntries: undefined,
      quotaBytes: undefined,
    };
    await using forgetful = await testSidecar(database, ["demo"], { ...never, bounds });
    await setIn(forgetful.client, "k", { requestId: randomUUID() });
    const remembered = randomUUID();
    await setIn(client, "k", { requestId: remembered });
    const [old, recent] = [randomUUID(), randomUUID()];
    await database.query(
      `insert into plugin_sidecar.batches (plugin_id, lane, batch, ended_at)
       values ($3, $1, 1, now() - interval '25 hours'), ($3, $2, 1, now() - interval '23 hours')`,
      [old, recent, pluginIds[0]],
    );
    const requests = () => database.query("select request_id from plugin_sidecar.requests");
    await expect.poll(requests).toEqual([{ request_id: remembered }]);
    const batches = () =>
      database.query("select lane from plugin_sidecar.batches where lane in ($1, $2)", [
        old,
        recent,
      ]);
    await expect.poll(batches).toEqual([{ lane: recent }]);
  });
});

describe("of two sidecars", () => {
  test("the one that is left sweeps; after the last nobody does", async () => {
    await using database = await testDatabase();
    const first = await testSidecar(database, ["demo"], { sweepIntervalMs: 10 });
    const second = await testSidecar(database, ["demo"], { sweepIntervalMs: 10 });
    const rows = () => rowsIn(database, scope.id);
    const store = async (by: TestSidecar, count: number) => {
      for (let n = 0; n < count; n++) {
        await by.client.call("set", { scope, key: `${n}`, valueJson: "1", ttl: soon });
      }
    };
    await store(first, 30);
    await expect.poll(rows).toBe(0);
    const { revision } = await second.client.call("get", name);
    expect(revision).toBe(60n);
    await first[Symbol.asyncDispose]();
    await store(second, 10);
    await expect.poll(rows).toBe(0);
    await store(second, 10);
    await second[Symbol.asyncDispose]();
    const left = await rows();
    await expect
      .poll(() =>
        database.query("select from plugin_sidecar.plugin_state where sidecar_expires_at > now()"),
      )
      .toEqual([]);
    expect(await rows()).toBe(left);
  });
});

test("a sweep that finds the database away goes on when it is back", async () => {
  await using proxy = await FaultProxy.before(database.url);
  const { database: config } = configFor(proxy.through(database.url), []);
  await using sidecar = await testSidecar(database, ["demo"], {
    database: config,
    sweepIntervalMs: 20,
  });
  await set({ ttl: soon });
  await expect.poll(() => rowsIn(database, scope.id)).toBe(0);
  await proxy.close();
  await set({ ttl: soon });
  await expect.poll(() => healthOf(sidecar.address)).toBe("NOT_SERVING");
  expect(await rowsIn(database, scope.id)).toBe(1);
  await proxy.open();
  await expect.poll(() => rowsIn(database, scope.id), { timeout: 10_000 }).toBe(0);
});
