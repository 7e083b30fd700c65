import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { expectCounted } from "./support/counters.ts";
import { testDatabase } from "./support/database.ts";
import { testSidecar } from "./support/sidecar.ts";

const table = "plugin_sidecar.plugin_state";
const instance = { kind: ScopeKind.INSTANCE };

/** A served plugin whose entry `k` an external writer has written. */
async function served() {
  const database = await testDatabase();
  const sidecar = await testSidecar(database, ["demo"], { sweepIntervalMs: 3_600_000 });
  const { pluginId } = sidecar.sidecar.bindings[0]!;
  await database.query(
    `insert into ${table} (plugin_id, scope_kind, state_key, value_json) values ($1, 'instance', 'k', '1')`,
    [pluginId],
  );
  const get = (key: string) => sidecar.client.call("get", { scope: instance, key });
  return {
    database,
    pluginId,
    get,
    client: sidecar.client,
    [Symbol.asyncDispose]: async () => {
      await sidecar[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

test("copies of an external writer's row, stamp and all, are numbered like other rows", async () => {
  await using it = await served();
  await it.get("k");
  await it.database.query(
    `insert into ${table} select (jsonb_populate_record(s, jsonb_build_object(
              'id', gen_random_uuid(), 'state_key', 'copy' || n))).*
       from ${table} s, generate_series(1, 2) n`,
  );
  const { entry, revision } = await it.get("copy1");
  expect(entry?.valueJson).toBe("1");
  expect(revision).toBe(3n);
  expect(
    (await it.client.call("set", { scope: instance, key: "k", valueJson: "2" })).revision,
  ).toBe(4n);
});

test("a row that a trigger of the host's writes again has the revision of what is there", async () => {
  await using it = await served();
  await it.database.query(
    `create function again() returns trigger language plpgsql as $$ begin
       update ${table} set value_json = '"again"' where id = new.id and value_json <> '"again"';
       return null;
     end $$;
     create trigger a_first after insert or update on ${table} for each row execute function again()`,
  );
  await it.database.query(
    `insert into ${table} (plugin_id, scope_kind, state_key, value_json) values ($1, 'instance', 'twice', '1')`,
    [it.pluginId],
  );
  const { entry } = await it.get("twice");
  expect(entry).toMatchObject({ valueJson: '"again"' });
  expect(entry!.revision).toBeGreaterThan(0n);
  await expectCounted(it.database, it.pluginId);
});

test("a counter that knows another server's transaction ids hides no external write", async () => {
  await using it = await served();
  await it.get("k");
  await it.database.query(
    "update plugin_sidecar.plugin_revisions set external_xmax = 1000000000000",
  );
  await it.database.query(`update ${table} set value_json = '2'`);
  expect(await it.get("k")).toMatchObject({
    revision: 2n,
    entry: { valueJson: "2", revision: 2n },
  });
  await it.database.query(
    "update plugin_sidecar.plugin_revisions set external_xmax = 1000000000000",
  );
  await it.database.query(`update ${table} set value_json = '3'`);
  const set = await it.client.call("set", { scope: instance, key: "other", valueJson: "1" });
  expect(set.revision).toBe(4n);
  await expectCounted(it.database, it.pluginId);
});

test.each([
  ["without a plugin", "alter column plugin_id drop not null", "plugin_id = null"],
  [
    "with another type of plugin",
    "drop constraint plugin_state_plugin_id_plugins_id_fk, alter column plugin_id type text",
    "state_key = 'renamed'",
  ],
])("a row %s fails no statement of the host's", async (_what, change, set) => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  await database.query(
    `insert into ${table} (plugin_id, scope_kind, state_key, value_json)
     select id, 'instance', 'k', '1' from plugin_sidecar.plugins`,
  );
  await database.query(`alter table ${table} ${change}`);
  await database.query(`update ${table} set ${set}`);
  await database.query(`delete from ${table}`);
  expect(await database.query(`select from ${table}`)).toEqual([]);
});

test("while somebody holds a plugin's counter its reads wait for it, and other plugins' don't wait", async () => {
  await using database = await testDatabase();
  await using sidecar = await testSidecar(database, ["demo", "other"]);
  const [demo, other] = sidecar.clients;
  await demo!.call("set", { scope: instance, key: "k", valueJson: "1" });
  await other!.call("set", { scope: instance, key: "k", valueJson: "1" });
  const holder = new pg.Client(database.connection);
  holder.on("error", () => undefined);
  await holder.connect();
  onTestFinished(() => holder.end());
  await holder.query("begin; select from plugin_sidecar.plugin_revisions for update");
  await database.query(`update ${table} set value_json = '2' where plugin_id = $1`, [
    sidecar.sidecar.bindings[0]!.pluginId,
  ]);

  const held = [0, 1, 2, 3].map(() => demo!.call("get", { scope: instance, key: "k" }));
  for (let n = 0; n < 20; n++) {
    const { entry } = await other!.call("get", { scope: instance, key: "k" });
    expect(entry?.valueJson).toBe("1");
  }
  const isPending = (await Promise.race([held[0], Promise.resolve("pending")])) === "pending";
  await holder.query("commit");

  expect(isPending).toBe(true);
  expect((await Promise.all(held)).map(({ entry }) => entry?.valueJson)).toEqual([
    "2",
    "2",
    "2",
    "2",
  ]);
});
