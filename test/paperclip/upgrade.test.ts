import { describe, expect, test } from "vitest";
import { entriesOf, expectCountsOfRows, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { loadHost } from "./host-packages.ts";
import { startLoad } from "./load.ts";
import { AttachedSidecar, attach, problemsOf } from "./sidecar.ts";

/** Longer than any statement of a host takes that doesn't wait. */
const lockTimeout = "5s";

test("the host's migrations, older to newer, run while a sidecar serves, and make what they make without it", async () => {
  await using database = await HostDatabase.create("older");
  await using plain = await HostDatabase.create("older");
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await database.query(`alter database ${database.name} set lock_timeout = '${lockTimeout}'`);
  await using sidecar = await AttachedSidecar.start(database);
  const load = startLoad(sidecar.client);
  const newer = await loadHost("newer");

  await newer.db.applyPendingMigrations(database.url);

  expect(await newer.db.inspectMigrations(database.url)).toMatchObject({ status: "upToDate" });
  await using upgraded = database.as(newer);
  await upgraded.store().set(pluginId, { scopeKind: "run", scopeId: "r", stateKey: "k", value: 1 });
  expect(await load.stop()).toMatchObject({ failures: [] });
  await expectCountsOfRows(database, sidecar.client, pluginId);
  await newer.db.applyPendingMigrations(plain.url);
  expect(await tablesOf(database)).toEqual(await tablesOf(plain));
});

test("rows are changed and their table is altered in one transaction", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  await database.store().set(pluginId, { scopeKind: "instance", stateKey: "a", value: 1 });

  await database.session(async (client) => {
    await client.query("begin");
    await client.query("update plugin_state set value_json = '2'");
    await client.query("alter table plugin_state add column host_note text");
    await client.query(
      `insert into plugin_state (plugin_id, scope_kind, state_key, value_json, host_note)
       values ($1, 'instance', 'b', '3', 'new')`,
      [pluginId],
    );
    await client.query("update plugins set status = 'ready'");
    await client.query("alter table plugins add column host_note text");
    await client.query("commit");
  });

  const entries = await entriesOf(sidecar.client);
  expect(entries).toMatchObject([
    { key: "a", valueJson: "2" },
    { key: "b", valueJson: "3" },
  ]);
  await expectCountsOfRows(database, sidecar.client, pluginId);
});

test("new columns of the host's have the names that it gives them, and are its own", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  const set = await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });

  await database.query(
    `alter table plugin_state
       add column revision integer not null default 7,
       add column created_at timestamptz not null default '2020-02-02T00:00:00Z',
       add column expires_at timestamptz,
       add column size_bytes integer not null default 9`,
  );

  const next = await sidecar.client.call("set", { scope: instance, key: "b", valueJson: "2" });
  expect(next.revision).toBe(set.revision + 1n);
  await database.store().set(pluginId, { scopeKind: "instance", stateKey: "c", value: 3 });
  expect(await entriesOf(sidecar.client)).toMatchObject([
    { key: "a", revision: set.revision },
    { key: "b", revision: set.revision + 1n },
    { key: "c", revision: set.revision + 2n },
  ]);
  const rows = await database.query(
    "select distinct revision, created_at, size_bytes from plugin_state",
  );
  expect(rows).toEqual([
    { revision: 7, created_at: new Date("2020-02-02T00:00:00Z"), size_bytes: 9 },
  ]);
});

/** A change to the host's tables, how it is undone, and a write by the host that goes with the change. */
const renames = [
  {
    what: "column plugin_id",
    rename: "alter table plugin_state rename column plugin_id to owner_id",
    undo: "alter table plugin_state rename column owner_id to plugin_id",
    write: "insert into plugin_state (owner_id, scope_kind, state_key, value_json)",
    isFault: true,
  },
  {
    what: "column scope_kind",
    rename: "alter table plugin_state rename column scope_kind to kind",
    undo: "alter table plugin_state rename column kind to scope_kind",
    write: "insert into plugin_state (plugin_id, kind, state_key, value_json)",
    isFault: true,
  },
  {
    what: "column value_json",
    rename: "alter table plugin_state rename column value_json to value",
    undo: "alter table plugin_state rename column value to value_json",
    write: "insert into plugin_state (plugin_id, scope_kind, state_key, value)",
    isFault: true,
  },
  {
    what: "table plugin_state",
    rename: "alter table plugin_state rename to plugin_entries",
    undo: "alter table plugin_entries rename to plugin_state",
    write: "insert into plugin_entries (plugin_id, scope_kind, state_key, value_json)",
    isFault: false,
  },
  {
    what: "table plugins",
    rename: "alter table plugins rename to extensions",
    undo: "alter table extensions rename to plugins",
    write: "insert into plugin_state (plugin_id, scope_kind, state_key, value_json)",
    isFault: false,
  },
] as const;

describe.each(renames)("with $what renamed", ({ rename, undo, write, isFault }) => {
  test("the host goes on, the sidecar says NOT_SERVING and why; named as before and migrated it serves again", async () => {
    await using database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await database.store().set(pluginId, { scopeKind: "instance", stateKey: "old", value: 1 });
    await attach(database);
    await using sidecar = await AttachedSidecar.start(database);
    expect(await sidecar.health()).toBe("SERVING");

    await database.query(rename);
    await database.query(`${write} values ($1, 'instance', 'new', '2')`, [pluginId]);
    const table = rename.includes("plugin_entries") ? "plugin_entries" : "plugin_state";
    await database.query(`update ${table} set updated_at = now() where state_key = 'old'`);
    await database.query(`delete from ${table} where state_key = 'old'`);

    await expect.poll(() => sidecar.health()).toBe("NOT_SERVING");
    expect(sidecar.log).toMatch(/plugin_state|plugins/);
    const faults = await database.query("select from plugin_sidecar.trigger_faults");
    expect(faults.length > 0).toBe(isFault);
    expect(await problemsOf(database)).not.toEqual([]);

    await database.query(undo);
    await attach(database);
    await expect.poll(() => sidecar.health()).toBe("SERVING");
    expect(await entriesOf(sidecar.client)).toMatchObject([{ key: "new", valueJson: "2" }]);
    await expectCountsOfRows(database, sidecar.client, pluginId);
    expect(await problemsOf(database)).toEqual([]);
  });
});

/** The host's columns, constraints and indexes, in words that are the same for every database. */
async function tablesOf(database: HostDatabase): Promise<object[]> {
  return await database.query(
    `select c.relname as relation, a.attname as name, format_type(a.atttypid, a.atttypmod) as is
       from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
        and a.attname !~ '^sidecar_' and c.relname !~ '^plugin_sidecar_'
     union all
     select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
      where connamespace = 'public'::regnamespace
     union all
     select indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
       from pg_index join pg_class i on i.oid = indexrelid
      where i.relnamespace = 'public'::regnamespace and i.relname !~ '^plugin_sidecar_'
      order by 1, 2, 3`,
  );
}
