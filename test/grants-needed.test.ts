import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { withClient } from "../src/postgres/connection.ts";
import { servingGrants } from "../src/postgres/grants.ts";
import { checkSchema } from "../src/postgres/migrate.ts";
import { Plugins } from "../src/postgres/plugins.ts";
import { Pool } from "../src/postgres/pool.ts";
import type { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { servingRole } from "./support/global-setup.ts";
import { testSidecar } from "./support/sidecar.ts";

const scope = { kind: ScopeKind.ISSUE, id: "I" };

/** Every kind of call, with a value that is large. */
async function callEverything(client: TestClient): Promise<void> {
  const requestId = randomUUID();
  const large = { scope, key: "large", valueJson: JSON.stringify("x".repeat(20_000)) };
  const name = { scope, key: "k" };
  await client.call("set", { ...large, requestId, returnPrevious: true });
  await client.call("get", large);
  await client.call("batchGet", { names: [large, { ...large, namespace: "elsewhere" }] });
  await client.call("batchGet", { names: [large, name] });
  await client.call("list", { scope });
  const places = ["here", "there"].map((namespace) => ({ ...name, namespace, valueJson: "1" }));
  await client.call("transact", {
    operations: places.map((value) => ({ operation: { case: "set", value } })),
  });
  await client.call("set", { ...name, valueJson: "{}", ttl: { seconds: 60n } });
  const change = { case: "mergePatch" as const, value: '{"a":1}' };
  await client.call("update", { ...name, change });
  await client.call("delete", name);
  await client.call("listScopes", {});
  await client.call("deleteRange", { scope, prefix: "l" });
}

/** What a sidecar does beside calls, on new connections of the same role. */
async function doChores(database: TestDatabase, pluginId: string): Promise<void> {
  const url = new URL(database.ownerUrl);
  url.username = servingRole;
  const connection = { connectionString: url.href };
  await checkSchema(connection, "plugin_sidecar");
  const onConnectionFailure = () => {};
  const log = createLog("silent");
  const pool = new Pool({ connection, connections: 1, timeoutMs: 9_000, log, onConnectionFailure });
  try {
    const plugins = new Plugins(pool, "plugin_sidecar");
    await plugins.find("demo");
  } finally {
    await pool.close();
  }
  await withClient(connection, async (client) => {
    await client.query("select plugin_sidecar.settle_batch($1, $2, 1)", [pluginId, randomUUID()]);
    await client.query("select plugin_sidecar.sweep($1, 10)", [pluginId]);
    await client.query("select plugin_sidecar.sweep_answers($1, 10)", [pluginId]);
    await client.query("select plugin_sidecar.settle_external_writes($1, true)", [pluginId]);
    // A plugin that has no counter yet gets one.
    await client.query("begin");
    await client.query("delete from plugin_sidecar.plugin_revisions");
    await client.query("select plugin_sidecar.settle_external_writes($1, true)", [pluginId]);
    await client.query("rollback");
    await client.query("select plugin_sidecar.next_plugin_to_sweep($1)", [randomUUID()]);
    await client.query("select plugin_sidecar.forget_plugin($1, 10)", [randomUUID()]);
  });
}

test("without any one of the rights that are granted, something doesn't work", async () => {
  await using database = await testDatabase();
  await using sidecar = await testSidecar(database, ["demo"], { sweepIntervalMs: 3_600_000 });
  const { pluginId } = sidecar.sidecar.bindings[0]!;
  const isServed = async () => {
    // For the sweep to have something to do.
    await database.query(
      `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
       values ($1, 'instance', 'over', '1') on conflict do nothing`,
      [pluginId],
    );
    await database.query(
      `begin; set local plugin_sidecar.writer = 'sidecar';
       update plugin_sidecar.plugin_state set sidecar_expires_at = now() - interval '1 s' where state_key = 'over';
       commit`,
    );
    const everything = callEverything(sidecar.client).then(() => doChores(database, pluginId));
    return await everything.then(
      () => true,
      () => false,
    );
  };
  expect(await isServed()).toBe(true);

  const unneeded: string[] = [];
  for (const { kind, schema, name, privileges } of servingGrants("plugin_sidecar")) {
    for (const privilege of privileges) {
      const right = `${privilege} on ${kind} ${kind === "schema" ? "" : `${schema}.`}${name}`;
      await database.query(`revoke ${right} from ${servingRole}`);
      if (await isServed()) {
        unneeded.push(right);
      }
      await database.query(`grant ${right} to ${servingRole}`);
    }
  }

  expect(unneeded).toEqual([]);
  expect(await isServed()).toBe(true);
}, 120_000);
