import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { checkSchema, migrate } from "../src/postgres/migrate.ts";
import { startSidecar } from "../src/server.ts";
import { testDatabase } from "./support/database.ts";
import { hostTables } from "./support/host-tables.ts";
import { configFor, testSidecar } from "./support/sidecar.ts";

const empty = "template0";

test("twenty sidecars starting at once on an empty database all come up", async () => {
  await using database = await testDatabase(empty);
  const starts = Array.from({ length: 20 }, () => migrate(database.connection, "plugin_sidecar"));
  const ran = await Promise.all(starts);
  const files = readdirSync("migrations").filter((file) => file.endsWith(".sql"));
  expect(ran.flat().toSorted()).toEqual(files.map((file) => file.replace(".sql", "")).toSorted());

  await database.addPlugin("demo");
  const config = configFor(database.url, ["demo"], database.ownerUrl);
  const sidecars = await Promise.all(
    Array.from({ length: 20 }, () =>
      startSidecar({ ...config, poolSize: 2 }, createLog("silent"), new AbortController().signal),
    ),
  );
  expect(sidecars).toHaveLength(20);
  await Promise.all(sidecars.map((sidecar) => sidecar.stop()));
});

test("the tables have the columns, types and constraints that the host's schema gives them", async () => {
  await using database = await testDatabase();
  const columns = await database.query<Record<string, string>>(
    `select column_name, data_type, is_nullable, column_default from information_schema.columns
      where table_schema = 'plugin_sidecar' and table_name = 'plugin_state' order by ordinal_position`,
  );
  expect(columns.slice(0, 8).map((column) => Object.values(column))).toEqual([
    ["id", "uuid", "NO", "gen_random_uuid()"],
    ["plugin_id", "uuid", "NO", null],
    ["scope_kind", "text", "NO", null],
    ["scope_id", "text", "YES", null],
    ["namespace", "text", "NO", "'default'::text"],
    ["state_key", "text", "NO", null],
    ["value_json", "jsonb", "NO", null],
    ["updated_at", "timestamp with time zone", "NO", "now()"],
  ]);
  const constraints = await database.query<{ name: string; definition: string }>(
    `select conname as name, pg_get_constraintdef(oid) as definition from pg_constraint
      where conrelid = 'plugin_sidecar.plugin_state'::regclass and contype in ('u', 'f', 'p') order by 1`,
  );
  expect(constraints).toEqual([
    { name: "plugin_state_pkey", definition: "PRIMARY KEY (id)" },
    {
      name: "plugin_state_plugin_id_plugins_id_fk",
      definition: "FOREIGN KEY (plugin_id) REFERENCES plugin_sidecar.plugins(id) ON DELETE CASCADE",
    },
    {
      name: "plugin_state_unique_entry_idx",
      definition:
        "UNIQUE NULLS NOT DISTINCT (plugin_id, scope_kind, scope_id, namespace, state_key)",
    },
  ]);
  const indexes = await database.query<{ name: string }>(
    `select indexrelid::regclass::text as name from pg_index
      where indrelid = 'plugin_sidecar.plugin_state'::regclass order by 1`,
  );
  expect(indexes.map(({ name }) => name)).toContain("plugin_sidecar.plugin_state_plugin_scope_idx");
});

test("migrating a migrated database runs nothing", async () => {
  await using database = await testDatabase();
  expect(await migrate(database.connection, "plugin_sidecar")).toEqual([]);
});

test("a migrated database passes the check, an empty one is refused as too old", async () => {
  await using migrated = await testDatabase();
  await using bare = await testDatabase(empty);
  await expect(checkSchema(migrated.connection, "plugin_sidecar")).resolves.toBeUndefined();
  await expect(checkSchema(bare.connection, "plugin_sidecar")).rejects.toMatchObject({
    reason: "SCHEMA_TOO_OLD",
  });
});

test("a database that a newer release has migrated is refused, whether or not to migrate", async () => {
  await using database = await testDatabase();
  await database.query(
    "insert into plugin_sidecar.migrations (name, run_on) values ('9999_from-the-future', now())",
  );
  const newer = { reason: "SCHEMA_TOO_NEW" };
  await expect(migrate(database.connection, "plugin_sidecar")).rejects.toMatchObject(newer);
  await expect(checkSchema(database.connection, "plugin_sidecar")).rejects.toMatchObject(newer);
});

test("deleting a plugin deletes its state, and the sweep what is kept of it", async () => {
  await using database = await testDatabase();
  await using server = await testSidecar(database);
  await server.client.call("set", {
    scope: { kind: ScopeKind.INSTANCE },
    key: "k",
    valueJson: "1",
  });
  await database.query("delete from plugin_sidecar.plugins");
  expect(await database.query("select from plugin_sidecar.plugin_state")).toEqual([]);
  const kept = () =>
    database.query(
      `select plugin_id from plugin_sidecar.plugin_revisions
       union all select plugin_id from plugin_sidecar.external_writes
       union all select plugin_id from plugin_sidecar.external_revisions
       union all select plugin_id from plugin_sidecar.requests
       union all select plugin_id from plugin_sidecar.batches`,
    );
  await expect.poll(kept).toEqual([]);
});

const unusable = { reason: "STATE_SCHEMA_UNUSABLE", hint: expect.any(String) };

test("a database restored with the constraint without NULLS NOT DISTINCT is refused at every start", async () => {
  await using database = await testDatabase();
  await database.query(
    `alter table plugin_sidecar.plugin_state drop constraint plugin_state_unique_entry_idx,
       add constraint plugin_state_unique_entry_idx unique (plugin_id, scope_kind, scope_id, namespace, state_key)`,
  );
  await expect(migrate(database.connection, "plugin_sidecar")).rejects.toMatchObject(unusable);
  await expect(checkSchema(database.connection, "plugin_sidecar")).rejects.toMatchObject(unusable);
});

test.for([
  ...[
    "plugin_sidecar_log_insert",
    "plugin_sidecar_log_update",
    "plugin_sidecar_log_truncate",
  ].flatMap((trigger) => [
    [`trigger ${trigger} disabled`, `disable trigger ${trigger}`],
    [`trigger ${trigger} lost`, `drop trigger ${trigger} on`],
  ]),
  ["a column lost", "drop column sidecar_bytes"],
])(
  "a database restored with %s is refused until it is migrated, which attaches anew",
  async ([, damage = ""]) => {
    await using database = await testDatabase();
    const table = "plugin_sidecar.plugin_state";
    await database.query(
      damage.endsWith(" on") ? `${damage} ${table}` : `alter table ${table} ${damage}`,
    );
    await expect(checkSchema(database.connection, "plugin_sidecar")).rejects.toMatchObject(
      unusable,
    );
    await migrate(database.connection, "plugin_sidecar");
    await expect(checkSchema(database.connection, "plugin_sidecar")).resolves.toBeUndefined();
  },
);

test("a host whose role has no rights on the sidecar's schema writes as before, and its writes are numbered", async () => {
  await using database = await testDatabase(empty);
  const role = `host_${Math.random().toString(36).slice(2)}`;
  await database.query(`create role ${role}`);
  try {
    await database.query(hostTables);
    await database.query(
      `grant select, insert, update, delete on plugins, plugin_state to ${role}`,
    );
    await migrate(database.connection, "public");
    await database.query(
      `begin; set local role ${role};
       insert into plugin_state (plugin_id, scope_kind, state_key, value_json) select id, 'instance', 'k', '1' from plugins
         on conflict (plugin_id, scope_kind, scope_id, namespace, state_key) do update set value_json = excluded.value_json;
       insert into plugin_state (plugin_id, scope_kind, state_key, value_json) select id, 'instance', 'k', '2' from plugins
         on conflict (plugin_id, scope_kind, scope_id, namespace, state_key) do update set value_json = excluded.value_json;
       commit`,
    );
    await database.query("select plugin_sidecar.settle_external_writes(id, true) from plugins");
    const rows = await database.query(
      `select s.value_json, x.revision
         from plugin_state s join plugin_sidecar.external_revisions x on x.stamp = s.sidecar_write_id`,
    );
    const counters = await database.query("select revision from plugin_sidecar.plugin_revisions");
    expect(rows).toEqual([{ value_json: 2, revision: "2" }]);
    expect(counters).toEqual([{ revision: "2" }]);
  } finally {
    await database.query(`drop owned by ${role}; drop role ${role}`);
  }
});
