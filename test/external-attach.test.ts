import pg from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { detach } from "../src/postgres/attach/detach.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { hostTables } from "./support/host-tables.ts";
import { FaultProxy } from "./support/proxy.ts";
import { testSidecar } from "./support/sidecar.ts";

/** The host's tables with 20,000 entries of five plugins, and nothing of the sidecar's. */
async function hostDatabase(): Promise<TestDatabase> {
  const database = await testDatabase("template0");
  onTestFinished(() => database[Symbol.asyncDispose]());
  await database.query(
    `${hostTables};
     insert into plugins (plugin_key, package_name, version, manifest_json)
       select 'p' || n, 'p', '1.0.0', '{}' from generate_series(2, 5) n;
     insert into plugin_state (plugin_id, scope_kind, scope_id, state_key, value_json)
       select p.id, 'run', 'é', p.plugin_key || n, to_jsonb(n) from plugins p, generate_series(1, 4000) n`,
  );
  return database;
}

const insert = (database: TestDatabase, key: string) =>
  database.query(
    `insert into plugin_state (plugin_id, scope_kind, state_key, value_json) select id, 'instance', $1, '1' from plugins`,
    [key],
  );

/** Fails unless every plugin's counter says what counting says. */
async function expectCounted(database: TestDatabase): Promise<void> {
  await database.query("select plugin_sidecar.settle_external_writes(id, true) from plugins");
  const counters = await database.query(
    `select p.plugin_key as key, r.entries::int, r.bytes::int, count(s.*)::int as found_entries,
            sum(octet_length(coalesce(s.scope_id, '')) + octet_length(s.namespace) + octet_length(s.state_key)
                + octet_length(s.value_json::text))::int as found_bytes
       from plugins p join plugin_sidecar.plugin_revisions r on r.plugin_id = p.id
       join plugin_state s on s.plugin_id = p.id
      group by p.id, r.plugin_id order by 1`,
  );
  expect(counters.map((row) => row["key"])).toEqual(["demo", "p2", "p3", "p4", "p5"]);
  for (const { key, entries, bytes, found_entries, found_bytes } of counters) {
    expect({ key, entries, bytes }).toEqual({ key, entries: found_entries, bytes: found_bytes });
  }
}

async function isAttached(database: TestDatabase): Promise<boolean> {
  const [row] = await database.query("select plugin_sidecar.attachment_problem() as problem");
  return row!["problem"] === null;
}

describe("attaching to a table of 20,000 entries", () => {
  test("counts the entries of each plugin, and says what it does", async () => {
    const database = await hostDatabase();
    const told: string[] = [];
    await migrate(database.connection, "public", { onProgress: (message) => told.push(message) });
    expect(told.filter((message) => message.startsWith("counted the entries"))).toHaveLength(5);
    expect(await isAttached(database)).toBe(true);
    await expectCounted(database);
  });

  const cuts: Record<string, (database: TestDatabase, abort: () => void) => unknown> = {
    "that is stopped": (_, abort) => abort(),
    "whose connections are ended": (database) =>
      database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and query !~ 'pg_terminate_backend' and application_name <> 'host'`,
      ),
  };

  test.each(Object.keys(cuts))(
    "%s at any step goes on when it is run again, beside writes of the host",
    async (way) => {
      const database = await hostDatabase();
      let runs = 0;
      for (let isDone = false; !isDone; runs++) {
        const stop = new AbortController();
        let cut: unknown;
        let steps = 0;
        const onProgress = () => {
          steps += 1;
          // The first step of each run is done, the second one begun at most.
          if (steps === 2) cut = cuts[way]!(database, () => stop.abort());
        };
        isDone = await migrate(database.connection, "public", {
          signal: stop.signal,
          onProgress,
        }).then(
          () => true,
          () => false,
        );
        await Promise.resolve(cut).catch(() => undefined);
        await insert(database, `run ${runs}`);
        await database.query("delete from plugin_state where state_key like $1", [`p_${runs}%`]);
      }
      expect(runs).toBeGreaterThan(3);
      expect(await isAttached(database)).toBe(true);
      await expectCounted(database);
    },
    60_000,
  );

  test("builds an index again that was left behind invalid", async () => {
    const database = await hostDatabase();
    await migrate(database.connection, "public");
    const index = "public.plugin_sidecar_expiry_idx";
    await database.query(
      `update pg_index set indisvalid = false where indexrelid = '${index}'::regclass`,
    );
    await migrate(database.connection, "public");
    const found = await database.query(
      `select indisvalid from pg_index where indexrelid = '${index}'::regclass`,
    );
    expect(found).toEqual([{ indisvalid: true }]);
  });

  test("waits for a transaction that uses the table, and lets others pass meanwhile", async () => {
    const database = await hostDatabase();
    const holder = new pg.Client({ ...database.connection, application_name: "host" });
    await holder.connect();
    onTestFinished(() => holder.end());
    await holder.query("begin; select from plugin_state limit 1");
    const told: string[] = [];
    const attaching = migrate(database.connection, "public", {
      onProgress: (message) => told.push(message),
    });
    for (let n = 0; !told.some((message) => message.startsWith("waiting")); n++) {
      await insert(database, `passes ${n}`);
    }
    expect(await isAttached(database)).toBe(false);
    await holder.query("commit");
    await attaching;
    expect(await isAttached(database)).toBe(true);
    await expectCounted(database);
  });

  test("also counts a plugin that a sidecar gave a counter meanwhile", async () => {
    const database = await hostDatabase();
    await migrate(database.connection, "public");
    await database.query(
      "select plugin_sidecar.begin_attachment(); delete from plugin_sidecar.plugin_revisions",
    );
    await insert(database, "meanwhile");
    await database.query("select plugin_sidecar.settle_external_writes(id, true) from plugins");
    await migrate(database.connection, "public");
    await expectCounted(database);
  });
});

test("functions can be created in the order of their names, before any table, as a restored dump does", async () => {
  await using database = await testDatabase();
  await using empty = await testDatabase("template0");
  const definitions = await database.query<{ name: string; definition: string }>(
    `select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as definition
       from pg_proc p where p.pronamespace = 'plugin_sidecar'::regnamespace order by p.proname collate "C", p.oid`,
  );
  const inOrder = definitions.map(({ definition }) => definition).join(";\n");
  const restore = `begin; set local check_function_bodies = off; ${inOrder}; commit`;
  await empty.query("create schema plugin_sidecar");
  await empty.query(restore);

  for (const { name } of definitions) {
    await database.query(`drop function ${name} cascade`);
  }
  await database.query(restore);
  await migrate(database.connection, "plugin_sidecar");
  const config = { database: { kind: "url" as const, url: database.ownerUrl } };
  await using sidecar = await testSidecar(database, ["demo"], config);
  const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
  await sidecar.client.call("set", { ...name, valueJson: "1" });
  await database.query("update plugin_sidecar.plugin_state set value_json = '2'");
  const { entry } = await sidecar.client.call("get", name);
  expect(entry).toMatchObject({ valueJson: "2", revision: 2n });
});

test("a host waits no longer for an attachment or its end over a slow network", async () => {
  const database = await hostDatabase();
  await using proxy = await FaultProxy.before(database.ownerUrl);
  proxy.slowDown(80);
  const connection = { connectionString: proxy.through(database.ownerUrl) };
  const host = new pg.Client({
    connectionString: database.ownerUrl,
    // Far less than a lock takes that is held for some round trips.
    options: "-c lock_timeout=300ms",
  });
  await host.connect();
  onTestFinished(() => host.end());
  let goesOn = true;
  const writes = (async () => {
    for (let n = 0; goesOn; n++) {
      await host.query(
        `insert into plugin_state (plugin_id, scope_kind, state_key, value_json)
         select id, 'user', 'written-' || $1, '1' from plugins`,
        [n],
      );
    }
  })();

  const { signal } = new AbortController();
  const attached = migrate(connection, "public").then(() =>
    detach(connection, { stateSchema: "public", signal, onProgress: () => undefined }),
  );
  await Promise.race([attached, writes]);
  goesOn = false;
  await writes;
});
