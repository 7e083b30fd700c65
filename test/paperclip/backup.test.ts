import { describe, expect, test } from "vitest";
import { followAdvice } from "./advice.ts";
import { entriesOf, epochOf, expectCountsOfRows, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar, attach, problemsOf } from "./sidecar.ts";

const hour = { seconds: 3_600n };

describe.each(["javascript", "pg_dump"] as const)("a backup by the host's %s engine", (engine) => {
  test("is restored into a new database, where the sidecar goes on as before", async () => {
    await using source = await HostDatabase.create();
    const pluginId = await source.addPlugin("demo");
    await source.store().set(pluginId, { scopeKind: "instance", stateKey: "older", value: [1] });
    await attach(source);
    await using sidecar = await AttachedSidecar.start(source);
    await sidecar.client.call("set", { scope: instance, key: "ours", valueJson: "{}", ttl: hour });
    await source.store().set(pluginId, { scopeKind: "instance", stateKey: "host", value: "x" });
    await source.store().set(pluginId, { scopeKind: "instance", stateKey: "ours", value: "both" });
    await sidecar.client.call("set", { scope: instance, key: "timed", valueJson: "1", ttl: hour });
    const before = await entriesOf(sidecar.client);
    const { revision } = await sidecar.client.call("list", { scope: instance });

    await using target = await HostDatabase.create("newer", "template0");
    await target.restore(await source.backUp(engine));

    // The engine that is written in JavaScript loses NULLS NOT DISTINCT of the host's own constraint.
    await followAdvice(target);
    await attach(target);
    await using restored = await AttachedSidecar.start(target);
    expect(await entriesOf(restored.client)).toEqual(before);
    await target.store().set(pluginId, { scopeKind: "instance", stateKey: "host", value: "y" });
    const set = await restored.client.call("set", { scope: instance, key: "n", valueJson: "1" });
    expect(set.revision).toBe(revision + 2n);
    await expectCountsOfRows(target, restored.client, pluginId);
  });

  test("from before the attaching, restored over the attached database, is what it was; migrate attaches anew", async () => {
    await using database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await database.store().set(pluginId, { scopeKind: "instance", stateKey: "a", value: "before" });
    const backup = await database.backUp(engine);
    const schema = await schemaRestored(backup);
    await attach(database);
    const before = await epochOf(database, pluginId);
    await using sidecar = await AttachedSidecar.start(database);
    const set = await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });
    await sidecar.stop();

    await database.restore(backup);

    expect(await database.dumpSchema("--schema=public")).toBe(schema);
    await using refused = await AttachedSidecar.start(database);
    expect(refused.line).toMatchObject({ event: "failed", retryable: false });
    expect(JSON.stringify(await problemsOf(database))).toMatch(/plugin_sidecar_|sidecar_revision/);

    await followAdvice(database);
    await attach(database);
    await using again = await AttachedSidecar.start(database);
    const { entry } = await again.client.call("get", { scope: instance, key: "a" });
    expect(entry).toMatchObject({ valueJson: '"before"' });
    expect(entry!.revision).toBeGreaterThan(set.revision);
    const next = await again.client.call("set", { scope: instance, key: "a", valueJson: "2" });
    expect(next.revision).toBeGreaterThan(entry!.revision);
    await expectCountsOfRows(database, again.client, pluginId);
    expect(await epochOf(database, pluginId)).not.toBe(before);
  });
});

test("all tables of the host are truncated at once, and the sidecar serves what comes after", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  const { revision } = await sidecar.client.call("set", {
    scope: instance,
    key: "a",
    valueJson: "1",
  });

  await database.query(
    `do $$ begin execute (
       select 'truncate ' || string_agg(format('public.%I', tablename), ', ')
         from pg_tables where schemaname = 'public'); end $$`,
  );

  await database.query(
    `insert into plugins (id, plugin_key, package_name, version, manifest_json)
     values ($1, 'demo', 'demo', '1.0.0', '{}')`,
    [pluginId],
  );
  await expect.poll(() => sidecar.health()).toBe("SERVING");
  expect(await entriesOf(sidecar.client)).toEqual([]);
  const set = await sidecar.client.call("set", { scope: instance, key: "b", valueJson: "1" });
  expect(set.revision).toBeGreaterThan(revision);
  await expectCountsOfRows(database, sidecar.client, pluginId);
});

/** What the host's schema is after a backup was restored into an empty database. */
async function schemaRestored(backup: string): Promise<string> {
  await using fresh = await HostDatabase.create("newer", "template0");
  await fresh.restore(backup);
  return await fresh.dumpSchema("--schema=public");
}
