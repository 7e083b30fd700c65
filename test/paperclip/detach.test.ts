import { expect, test } from "vitest";
import { entriesOf, epochOf, expectCountsOfRows, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar, attach, command, problemsOf } from "./sidecar.ts";

const hour = { seconds: 3_600n };

test("detach leaves the host's schema and rows as they were, and nothing else", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await fill(database, pluginId);
  const before = { schema: await database.dumpSchema(), rows: await rowsOf(database) };
  await attach(database);

  const detached = await command(database, "detach", "--yes");

  expect(detached).toMatchObject({ code: 0 });
  expect(await database.dumpSchema()).toBe(before.schema);
  expect(await rowsOf(database)).toBe(before.rows);
});

test("detach keeps what sidecars wrote, and says what is lost with them", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  await sidecar.client.call("set", { scope: instance, key: "kept", valueJson: '{"a": 1.50}' });
  await sidecar.client.call("set", { scope: instance, key: "timed", valueJson: "1", ttl: hour });
  await sidecar.stop();

  const { code, stdout, stderr } = await command(database, "detach", "--yes");

  expect(code).toBe(0);
  expect(stdout + stderr).toMatch(/revision/i);
  expect(stdout + stderr).toMatch(/time to live|ttl|expir/i);
  expect(stdout + stderr).toMatch(/rights .* stay/i);
  const store = database.store();
  expect(await store.get(pluginId, "instance", "kept")).toEqual({ a: 1.5 });
  expect(await store.get(pluginId, "instance", "timed")).toBe(1);
  await store.set(pluginId, { scopeKind: "instance", stateKey: "kept", value: 2 });
  expect(await store.get(pluginId, "instance", "kept")).toBe(2);
});

test("detach without --yes changes nothing where nobody can be asked", async () => {
  await using database = await HostDatabase.create();
  await database.addPlugin("demo");
  await attach(database);
  const before = await database.dumpSchema();

  const { code, stdout, stderr } = await command(database, "detach");

  expect(code).not.toBe(0);
  expect(stdout + stderr).toMatch(/--yes/);
  expect(await database.dumpSchema()).toBe(before);
});

test("a sidecar whose database is detached says so, and serves again once it is attached", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });

  expect(await command(database, "detach", "--yes")).toMatchObject({ code: 0 });
  await expect.poll(() => sidecar.health()).toBe("NOT_SERVING");
  await database.store().set(pluginId, { scopeKind: "instance", stateKey: "b", value: 2 });
  await attach(database);

  await expect.poll(() => sidecar.health()).toBe("SERVING");
  expect(await entriesOf(sidecar.client)).toMatchObject([
    { key: "a", valueJson: "1" },
    { key: "b", valueJson: "2" },
  ]);
});

test("attach, detach, attach: the second is as good as the first, with an epoch of its own", async () => {
  await using database = await HostDatabase.create();
  const pluginId = await database.addPlugin("demo");
  await fill(database, pluginId);
  await attach(database);
  const attached = await schemaOf(database);
  const epoch = await epochOf(database, pluginId);

  expect(await command(database, "detach", "--yes")).toMatchObject({ code: 0 });
  await attach(database);

  expect(await schemaOf(database)).toEqual(attached);
  expect(await epochOf(database, pluginId)).not.toBe(epoch);
  expect(await problemsOf(database)).toEqual([]);
  await using sidecar = await AttachedSidecar.start(database);
  await sidecar.client.call("set", { scope: instance, key: "key-1", valueJson: '"new"' });
  await database.store().set(pluginId, { scopeKind: "instance", stateKey: "key-2", value: "host" });
  expect((await entriesOf(sidecar.client)).slice(1, 3)).toMatchObject([
    { key: "key-1", valueJson: '"new"' },
    { key: "key-2", valueJson: '"host"' },
  ]);
  await expectCountsOfRows(database, sidecar.client, pluginId);
});

/** Rows of every shape that a host writes. */
async function fill(database: HostDatabase, pluginId: string): Promise<void> {
  const store = database.store();
  for (const [n, value] of [1, "text", true, { a: [1, { b: "\u00e9" }] }, [], "\t\n\\"].entries()) {
    await store.set(pluginId, { scopeKind: "instance", stateKey: `key-${n}`, value });
    await store.set(pluginId, {
      ...{ scopeKind: "issue", scopeId: `issue ${n}`, namespace: "n", stateKey: "k" },
      value,
    });
  }
}

async function rowsOf(database: HostDatabase): Promise<string> {
  return await database.psql(
    "copy (select p from plugins p order by id) to stdout; copy plugin_state to stdout",
  );
}

/** The lines of the schema, whatever the order in which things were made. */
async function schemaOf(database: HostDatabase): Promise<string[]> {
  return (await database.dumpSchema()).split("\n").sort();
}
