import { randomBytes } from "node:crypto";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { withClient } from "../src/postgres/connection.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { startSidecar } from "../src/server.ts";
import { operationIn, operations } from "./support/arbitraries.ts";
import { TestClient } from "./support/client.ts";
import { databaseUrl } from "./support/database.ts";
import { foreignWriter } from "./support/foreign-writer.ts";
import { hostTables } from "./support/host-tables.ts";
import { compareBytes, Model, placesOf, readPages } from "./support/model.ts";
import { perform } from "./support/operations.ts";
import { configFor } from "./support/sidecar.ts";

const server = inject("databaseUrl");

/** A database that sorts as English does, and is dropped when `onEnd` says. */
async function englishDatabase(onEnd: (drop: () => Promise<void>) => void) {
  const name = `test_english_${randomBytes(6).toString("hex")}`;
  const maintain = (text: string) =>
    withClient({ connectionString: server }, (client) => client.query(text));
  await maintain(
    `create database ${name} template template0 strategy file_copy
       locale_provider icu icu_locale 'en-US'`,
  );
  const url = databaseUrl(server, name);
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => undefined);
  onEnd(async () => {
    await pool.end();
    await maintain(`drop database ${name} with (force)`);
  });
  const servingUrl = databaseUrl(inject("servingUrl"), name);
  return { url, servingUrl, connection: { connectionString: url }, query: pool.query.bind(pool) };
}

type Database = Awaited<ReturnType<typeof englishDatabase>>;

async function attach({ url, servingUrl }: Database, stateSchema = "public") {
  const config = { ...configFor(servingUrl, ["demo"], url), stateSchema };
  return await startSidecar(config, createLog("silent"), new AbortController().signal);
}

const instance = { kind: ScopeKind.INSTANCE, id: "" };

describe("in a database that sorts as English does, attached to the host's tables,", () => {
  const cleanups: (() => unknown)[] = [];
  let database: Database;
  let client: TestClient;

  beforeAll(async () => {
    database = await englishDatabase((drop) => cleanups.unshift(drop));
    await database.query(hostTables);
    await database.query(
      `insert into plugin_state (plugin_id, scope_kind, state_key, value_json, updated_at)
       select id, 'instance', 'older', '{"a": 1.0}', '2020-02-02 02:02:02.000002Z' from plugins`,
    );
    const sidecar = await attach(database);
    cleanups.unshift(() => sidecar.stop());
    client = new TestClient(sidecar.bindings[0]!.address);
    cleanups.unshift(() => client[Symbol.dispose]());
  });

  afterAll(async () => {
    for (const cleanup of cleanups) {
      await cleanup();
    }
  });

  test("the database's own order isn't that of bytes", async () => {
    const { rows } = await database.query("select 'a' < 'B' and 'é' < 'f' as english");
    expect(rows).toEqual([{ english: true }]);
  });

  test("a listing of many entries is read by an index in byte order", async () => {
    await database.query(
      `insert into plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
       select p.id, 'issue', 'many', n::text, '1' from generate_series(1, 2000) n, plugins p`,
    );
    await database.query("analyze plugin_state");
    const place = { scope: { kind: ScopeKind.ISSUE, id: "many" }, namespace: "" };
    const before = await indexReads();
    await client.call("list", { ...place, pageSize: 10, prefix: "199" });
    // A connection that is idle again may tell its statistics only after 10 s.
    await expect
      .poll(async () => (await indexReads()) - before, { timeout: 15_000 })
      .toBeGreaterThan(0);
    expect((await indexReads()) - before).toBeLessThan(50);
  });

  /** Entries read by the index in byte order so far. */
  async function indexReads(): Promise<number> {
    const { rows } = await database.query(
      `select idx_tup_read as reads from pg_stat_user_indexes
        where indexrelname = 'plugin_sidecar_key_order_idx'`,
    );
    return Number(rows[0]?.reads);
  }

  test("an entry from before is served, made when it was last written, without a revision", async () => {
    const { entry } = await client.call("get", { scope: instance, key: "older" });
    const time = { seconds: 1580608922n, nanos: 2000 };
    expect(entry).toMatchObject({ valueJson: '{"a": 1.0}', revision: 0n, createTime: time });
    expect(entry).toMatchObject({ updateTime: time });
  });

  test("an entry from before is written on condition that it has no revision yet", async () => {
    // As one that was there when the sidecar came: nothing is noted of it.
    await database.query(
      `begin; set local plugin_sidecar.writer = 'sidecar';
       insert into plugin_state (plugin_id, scope_kind, state_key, value_json)
         select id, 'instance', 'without', '1' from plugins;
       commit`,
    );
    const condition = { case: "ifRevision" as const, value: 0n };
    const without = { scope: instance, key: "without" };
    const change = { case: "increment" as const, value: {} };
    const options = { condition, returnPrevious: true };
    const update = await client.call("update", { ...without, ...options, change });
    expect(update).toMatchObject({ valueJson: "2", previous: { valueJson: "1", revision: 0n } });
  });

  test("keys come in byte order, by prefix, range and page", async () => {
    const place = { scope: { kind: ScopeKind.RUN, id: "order" }, namespace: "" };
    const keys = [..."aAbBzZ_-%éÉe\u0301ß\ud7ff\ue000\uffff\u{10000}\u{1f600}", "a-b", "ab", "aB"];
    await Promise.all(keys.map((key) => client.call("set", { ...place, key, valueJson: "1" })));
    const sorted = [...keys].sort(compareBytes);
    const listed = async (options: object) =>
      (await readPages(client, { ...place, pageSize: 3, ...options })).flat().map(({ key }) => key);

    expect(await listed({})).toEqual(sorted);
    expect(await listed({ reverse: true })).toEqual([...sorted].reverse());
    expect(await listed({ prefix: "a" })).toEqual(["a", "a-b", "aB", "ab"]);
    expect(await listed({ start: "Z", end: "a" })).toEqual(["Z", "_"]);
    expect(await listed({ startAfter: "\uffff" })).toEqual(["\u{10000}", "\u{1f600}"]);
  });

  test("operations answer as they do everywhere, beside writes of the host", async () => {
    const { rows } = await database.query<{ id: string }>("select id from plugins");
    const host = foreignWriter(database.query, rows[0]!.id, "public");
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(operations(2), async (numbered) => {
        const places = placesOf(`run-${runs++}`);
        const { revision } = await client.call("list", places[0]!);
        const model = new Model(revision);
        for (const [index, one] of numbered.entries()) {
          const operation = operationIn(places, one, (name) => model.revisionOf(name));
          if (operation.do === "set" && index % 2 === 0) {
            const { name, valueJson } = operation;
            await host.upsert(name, valueJson);
            model.apply({ do: "set", name, valueJson });
          } else {
            expect(await perform(client, operation)).toEqual(model.apply(operation));
          }
        }
      }),
      { numRuns: 15 },
    );
  });

  test("nothing but the sidecar's own columns, triggers and indexes is added to the host's schema", async () => {
    const { rows } = await database.query<{ relname: string }>(
      `select relname from pg_class where relnamespace = 'public'::regnamespace order by relname`,
    );
    expect(rows.map(({ relname }) => relname)).toEqual([
      "plugin_sidecar_expiry_idx",
      "plugin_sidecar_key_order_idx",
      "plugin_sidecar_scope_order_idx",
      "plugin_state",
      "plugin_state_pkey",
      "plugin_state_plugin_scope_idx",
      "plugin_state_unique_entry_idx",
      "plugins",
      "plugins_pkey",
      "plugins_plugin_key_idx",
    ]);
    const { rows: triggers } = await database.query<{ tgname: string }>(
      `select tgname from pg_trigger
        where tgrelid = 'plugin_state'::regclass and not tgisinternal order by tgname`,
    );
    expect(triggers.map(({ tgname }) => tgname)).toEqual([
      "plugin_sidecar_log_delete",
      "plugin_sidecar_log_insert",
      "plugin_sidecar_log_truncate",
      "plugin_sidecar_log_update",
    ]);
    const { rows: columns } = await database.query<{ attname: string }>(
      `select attname from pg_attribute
        where attrelid = 'plugin_state'::regclass and attnum > 8 and not attisdropped order by attnum`,
    );
    expect(columns.map(({ attname }) => attname)).toEqual([
      "sidecar_revision",
      "sidecar_write_id",
      "sidecar_created_at",
      "sidecar_expires_at",
      "sidecar_bytes",
    ]);
  });

  test("a sidecar that is told another schema than the installed one is refused", async () => {
    const refusal = { reason: "STATE_SCHEMA_DIFFERS", retryable: false };
    await expect(attach(database, "plugin_sidecar")).rejects.toMatchObject(refusal);
    await expect(attach(database, "another")).rejects.toMatchObject(refusal);
  });
});

describe("attaching is refused, and nothing is left behind,", () => {
  test("when the host hasn't made its tables", async () => {
    const database = await englishDatabase(onTestFinished);

    await expect(attach(database)).rejects.toMatchObject({
      reason: "HOST_TABLES_MISSING",
      retryable: true,
      hint: expect.stringContaining("host"),
    });

    const { rows } = await database.query(
      "select from pg_tables where schemaname in ('public', 'plugin_sidecar') and tablename <> 'migrations'",
    );
    expect(rows).toEqual([]);
  });

  test("when the constraint was restored without NULLS NOT DISTINCT, until it is put right", async () => {
    const database = await englishDatabase(onTestFinished);
    const columns = "(plugin_id, scope_kind, scope_id, namespace, state_key)";
    const constrain = (nulls: string) =>
      database.query(
        `alter table plugin_state drop constraint plugin_state_unique_entry_idx,
           add constraint plugin_state_unique_entry_idx unique ${nulls} ${columns}`,
      );
    await database.query(hostTables);
    await constrain("");

    await expect(attach(database)).rejects.toMatchObject({
      reason: "STATE_SCHEMA_UNUSABLE",
      hint: expect.stringContaining("nulls not distinct"),
    });
    await constrain("nulls not distinct");
    const sidecar = await attach(database);
    onTestFinished(() => sidecar.stop());
  });
});

test("a schema whose name needs quoting is attached as any other", async () => {
  const database = await englishDatabase(onTestFinished);
  const schema = "Host_State";
  await database.query(`create schema "${schema}"; set search_path to "${schema}"; ${hostTables}`);

  await migrate(database.connection, schema);

  const sidecar = await attach(database, schema);
  onTestFinished(() => sidecar.stop());
  using client = new TestClient(sidecar.bindings[0]!.address);
  const set = await client.call("set", { scope: instance, key: "a", valueJson: "1" });
  expect(set).toMatchObject({ created: true, revision: 1n });
});
