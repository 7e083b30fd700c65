import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { checkSchema, migrate } from "../src/postgres/migrate.ts";
import { startSidecar } from "../src/server.ts";
import { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { hostTables } from "./support/host-tables.ts";
import { configFor } from "./support/sidecar.ts";

// What the host does to its own table never makes its statements fail. What the sidecar can't know any more, it says.

/** Of the host's tables in `public`, attached, with an entry that has a revision and bytes counted. */
async function attachedDatabase(): Promise<TestDatabase> {
  const database = await testDatabase("template0");
  await database.query(hostTables);
  await migrate(database.connection, "public");
  await insert(database, "before");
  await database.query("select plugin_sidecar.settle_external_writes(id, true) from plugins");
  return database;
}

async function insert(database: TestDatabase, key: string, column = "scope_kind"): Promise<void> {
  await database.query(
    `insert into plugin_state (plugin_id, ${column}, state_key, value_json) select id, 'instance', '${key}', '1' from plugins`,
  );
}

async function problem(database: TestDatabase): Promise<string | null> {
  const [row] = await database.query<{ problem: string | null }>(
    "select plugin_sidecar.attachment_problem() as problem",
  );
  return row!.problem;
}

const counterOf = async (database: TestDatabase) => {
  const [row] = await database.query<Record<string, string>>(
    `select revision, base_revision, epoch, entries, bytes,
            (select count(*) from plugin_state) as found_entries,
            (select sum(octet_length(namespace) + octet_length(state_key) + octet_length(value_json::text))
               from plugin_state) as found_bytes
       from plugin_sidecar.plugin_revisions`,
  );
  return row!;
};

/** Fails unless migrating makes all that is wrong right again. */
async function expectMended(database: TestDatabase): Promise<void> {
  const before = await counterOf(database);
  await expect(checkSchema(database.connection, "public")).rejects.toMatchObject({
    reason: "STATE_SCHEMA_UNUSABLE",
  });
  await migrate(database.connection, "public");
  expect(await problem(database)).toBeNull();
  const after = await counterOf(database);
  expect(after["epoch"]).not.toBe(before["epoch"]);
  expect(BigInt(after["base_revision"]!)).toBeGreaterThan(BigInt(before["revision"]!));
  expect(BigInt(after["revision"]!)).toBeGreaterThanOrEqual(BigInt(after["base_revision"]!));
  expect(after).toMatchObject({ entries: after["found_entries"], bytes: after["found_bytes"] });

  const config = { ...configFor(database.ownerUrl, ["demo"]), stateSchema: "public" };
  const sidecar = await startSidecar(config, createLog("silent"), new AbortController().signal);
  using client = new TestClient(sidecar.bindings[0]!.address);
  const scope = { kind: ScopeKind.INSTANCE };
  const { entries, revision } = await client.call("list", { scope });
  expect(entries.map((entry) => entry.revision)).toEqual(entries.map(() => revision));
  await insert(database, "afterwards");
  const { entry } = await client.call("get", { scope, key: "afterwards" });
  expect(entry?.revision).toBe(revision + 1n);
  await sidecar.stop();
}

const faults = async (database: TestDatabase) =>
  (
    await database.query<{ problem: string }>("select problem from plugin_sidecar.trigger_faults")
  ).map((row) => row.problem);

test("a column that the host renames fails none of its statements, and is told", async () => {
  await using database = await attachedDatabase();
  await database.query("alter table plugin_state rename column scope_kind to kind2");
  await insert(database, "renamed", "kind2");
  await database.query("update plugin_state set value_json = '2'");
  await database.query("delete from plugin_state where state_key = 'before'");
  expect(await faults(database)).toEqual([expect.stringContaining("scope_kind")]);
  expect(await problem(database)).toContain("lacks columns: scope_kind");
  await database.query("alter table plugin_state rename column kind2 to scope_kind");
  await insert(database, "renamed back");
  expect(await problem(database)).toContain("went unnoticed");
  await expectMended(database);
});

test("a column that the host renames and renames back, between writes of one transaction, fails none of them", async () => {
  await using database = await attachedDatabase();
  const write = (key: string, column: string) =>
    `insert into plugin_state (plugin_id, ${column}, state_key, value_json)
       select id, 'instance', '${key}', '1' from plugins;
     update plugin_state set value_json = '2' where state_key = 'before'`;
  await database.query(
    `begin; ${write("a", "scope_kind")};
     alter table plugin_state rename column scope_kind to kind2; ${write("b", "kind2")};
     alter table plugin_state rename column kind2 to scope_kind; ${write("c", "scope_kind")};
     commit`,
  );
  expect(await faults(database)).toEqual([expect.stringContaining("scope_kind")]);
  await expectMended(database);
});

test.each([
  "sidecar_revision",
  "sidecar_write_id",
  "sidecar_created_at",
  "sidecar_bytes",
  "sidecar_expires_at",
])("column %s that somebody drops fails none of the host's statements", async (column) => {
  await using database = await attachedDatabase();
  await database.query(`alter table plugin_state drop column ${column}`);
  await insert(database, "after");
  await database.query("update plugin_state set value_json = '2'");
  await database.query("delete from plugin_state where state_key = 'before'");
  expect(await problem(database)).toContain(`lacks columns: ${column}`);
  await expectMended(database);
});

test("a row that is inserted without a stamp, as copies with the sidecar's columns are, is told", async () => {
  await using database = await attachedDatabase();
  await database.query(
    `begin;
     -- As the sidecar writes it.
     set local plugin_sidecar.writer = 'sidecar';
     update plugin_state set sidecar_write_id = null, sidecar_revision = 1;
     commit;
     create table copy as select * from plugin_state;
     delete from plugin_state;
     insert into plugin_state select * from copy`,
  );
  expect(await faults(database)).toEqual([
    expect.stringContaining("inserted with the sidecar's columns"),
  ]);
  await expectMended(database);
});

test.each([
  "external_writes",
  "trigger_faults",
  "plugin_revisions",
  "external_revisions",
  "installation",
])("without the sidecar's table %s the host writes as before", async (table) => {
  await using database = await attachedDatabase();
  await database.query(`drop table plugin_sidecar.${table}`);
  await insert(database, "after");
  await database.query("update plugin_state set value_json = '2'");
  await database.query("delete from plugin_state where state_key = 'before'");
  await database.query("truncate plugin_state");
  await insert(database, "in the end");
  const rows = await database.query("select state_key from plugin_state");
  expect(rows).toEqual([{ state_key: "in the end" }]);
});

test("without the sidecar's schema the host writes as before", async () => {
  await using database = await attachedDatabase();
  await database.query("drop schema plugin_sidecar cascade");
  await insert(database, "after");
  const rows = await database.query("select state_key from plugin_state order by state_key");
  expect(rows).toEqual([{ state_key: "after" }, { state_key: "before" }]);
});
