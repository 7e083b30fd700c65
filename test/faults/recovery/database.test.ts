import pg from "pg";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../../../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../../../src/log.ts";
import { migrate } from "../../../src/postgres/migrate.ts";
import { Pool } from "../../../src/postgres/pool.ts";
import { failure } from "../../support/client.ts";
import { createDatabase, type TestDatabase, testDatabase } from "../../support/database.ts";
import { grantServing } from "../../support/global-setup.ts";
import { holdWrites } from "../../support/hold-writes.ts";
import { type TestSidecar, testSidecar } from "../../support/sidecar.ts";
import { HealthWatch } from "./health-watch.ts";

const databaseTimeoutMs = 2_500;
const unavailable = { codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE", retryAfter: true };
const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;
let sidecar: TestSidecar;
let health: HealthWatch;

beforeEach(async () => {
  database = await testDatabase();
  sidecar = await testSidecar(database, ["demo"], { databaseTimeoutMs });
  health = new HealthWatch(sidecar.address);
  onTestFinished(async () => {
    health[Symbol.dispose]();
    await sidecar[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
  });
  await health.says("SERVING", 0);
});

const get = () => sidecar.client.call("get", name);
const set = (valueJson: string) => sidecar.client.call("set", { ...name, valueJson });

/** The sidecar's sessions that wait for a lock, and all of them. */
async function sessions() {
  const rows = await database.query<{ waits: boolean }>(
    `select coalesce(wait_event_type = 'Lock', false) as waits from pg_stat_activity
      where datname = current_database() and application_name = 'plugin-state-sidecar'`,
  );
  return { open: rows.length, waiting: rows.filter(({ waits }) => waits).length };
}

test("writes that were given up because somebody holds the counter fail in time, and leave no session that waits", async () => {
  await set("1");
  const held = await holdWrites(database);
  const beganAt = performance.now();
  const errors = await Promise.all(["2", "3", "4"].map((value) => failure(set(value))));
  const tookMs = performance.now() - beganAt;
  for (const error of errors) {
    expect(error).toMatchObject(unavailable);
  }
  // One batch was sent; the others came in the next.
  expect(tookMs).toBeLessThan(2 * databaseTimeoutMs + 3_000);
  expect((await get()).entry?.valueJson).toBe("1");
  // Still held; but nobody waits for answers any more.
  await expect.poll(async () => (await sessions()).waiting, { timeout: 10_000 }).toBe(0);
  expect((await sessions()).open).toBeLessThanOrEqual(3);
  await held.release();
  expect((await get()).entry?.valueJson).toBe("1");
  await set("5");
  expect((await get()).entry?.valueJson).toBe("5");
});

test("health goes on saying SERVING while somebody holds the counter, and reads are answered", async () => {
  await set("1");
  const held = await holdWrites(database);
  const beganAt = performance.now();
  const writing = failure(set("2"));
  await held.areWaiting(1);
  expect((await get()).entry?.valueJson).toBe("1");
  expect(await writing).toMatchObject(unavailable);
  expect(health.since(beganAt)).toEqual([]);
  await held.release();
});

test("a session is told when it opens to notice a client that vanished", async () => {
  const pool = new Pool({
    connection: database.connection,
    connections: 1,
    timeoutMs: 5_000,
    log: createLog("silent"),
    onConnectionFailure: () => undefined,
  });
  onTestFinished(() => pool.close());
  const rows = await pool.run<{ setting: string }>(
    {
      name: "settings",
      text: "select current_setting('client_connection_check_interval') as setting",
    },
    [],
  );
  expect(rows).toEqual([{ setting: "2s" }]);
});

test("a database that was dropped is UNAVAILABLE; made anew without tables too; and with them it serves", async () => {
  await set("1");
  const server = new URL(database.ownerUrl);
  const dropped = server.pathname.slice(1);
  server.pathname = "/postgres";
  const admin = new pg.Client({ connectionString: server.href });
  await admin.connect();
  onTestFinished(() => admin.end());
  const [plugin] = await database.query<{ id: string }>("select id from plugin_sidecar.plugins");

  await admin.query(`drop database ${dropped} with (force)`);
  await health.says("NOT_SERVING", 0);
  expect(await failure(get())).toMatchObject(unavailable);
  expect(await failure(set("2"))).toMatchObject(unavailable);

  await createDatabase(server.href, dropped, "template0");
  await expect
    .poll(async () => [await failure(get()), await failure(set("2"))])
    .toMatchObject([unavailable, unavailable]);
  expect(health.status).toBe("NOT_SERVING");

  await migrate(database.connection, "plugin_sidecar");
  await grantServing(database.connection);
  await database.query(
    `insert into plugin_sidecar.plugins (id, plugin_key, package_name, version, manifest_json)
     values ($1, 'demo', 'demo', '1.0.0', '{"capabilities": []}')`,
    [plugin!.id],
  );
  await health.says("SERVING", 0);
  await set("3");
  expect((await get()).entry?.valueJson).toBe("3");
});

test("a release that replaced the functions leaves calls UNAVAILABLE, not INTERNAL", async () => {
  await set("1");
  await database.query("alter function plugin_sidecar.read_entry rename to read_entry_2");
  await database.query("alter function plugin_sidecar.set_entries rename to set_entries_2");
  expect(await failure(get())).toMatchObject(unavailable);
  expect(await failure(set("2"))).toMatchObject(unavailable);
  await database.query("alter function plugin_sidecar.read_entry_2 rename to read_entry");
  await database.query("alter function plugin_sidecar.set_entries_2 rename to set_entries");
  expect((await get()).entry?.valueJson).toBe("1");
});
