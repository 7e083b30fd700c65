import { describe, expect, test } from "vitest";
import { servingRole } from "../support/global-setup.ts";
import { followAdvice } from "./advice.ts";
import { entriesOf, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar } from "./sidecar.ts";

const uniqueColumns = "(plugin_id, scope_kind, scope_id, namespace, state_key)";
const withoutNullsNotDistinct = `
  alter table plugin_state drop constraint plugin_state_unique_entry_idx;
  alter table plugin_state add constraint plugin_state_unique_entry_idx unique ${uniqueColumns};`;

/** Shapes of a host's database that no sidecar has seen yet. */
const shapes = {
  "as its migrations made it": "",
  "restored without NULLS NOT DISTINCT": withoutNullsNotDistinct,
  "restored without NULLS NOT DISTINCT, with duplicates since": `${withoutNullsNotDistinct}
    insert into plugin_state (plugin_id, scope_kind, state_key, value_json, updated_at)
    select id, 'instance', 'twice', '"newest"', now() + interval '1 hour' from plugins;`,
};

describe.each(Object.entries(shapes))("a host's database %s", (_shape, sql) => {
  test("before the first migration: what doctor advises, done to the letter, leads to a sidecar that works", async () => {
    await using database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await database
      .store()
      .set(pluginId, { scopeKind: "instance", stateKey: "twice", value: "old" });
    await database.query(sql);

    expect(await followAdvice(database, "--role", servingRole)).toEqual([]);

    await using sidecar = await AttachedSidecar.start(database);
    await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });
    const value = sql.includes("newest") ? '"newest"' : '"old"';
    expect(await entriesOf(sidecar.client)).toMatchObject([
      { key: "a", valueJson: "1" },
      { key: "twice", valueJson: value },
    ]);
  });
});

test("a database that the host hasn't migrated yet: doctor says that the host has to", async () => {
  await using database = await HostDatabase.create("newer", "template0");

  expect(JSON.stringify(await followAdvice(database))).toMatch(/host|Paperclip/);

  await database.host.db.applyPendingMigrations(database.url);
  await database.addPlugin("demo");
  await followAdvice(database, "--role", servingRole);
  await using sidecar = await AttachedSidecar.start(database);
  await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });
});
