import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { withClient } from "../src/postgres/connection.ts";
import { examine } from "../src/postgres/doctor/examine.ts";
import { grantStatements, servingGrants } from "../src/postgres/grants.ts";
import { Pool } from "../src/postgres/pool.ts";
import * as statements from "../src/postgres/statements.ts";
import { startSidecar } from "../src/server.ts";
import { ExitCode } from "../src/start-error.ts";
import { run } from "./command/run-command.ts";
import { TestClient } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { servingRole } from "./support/global-setup.ts";
import { hostTables } from "./support/host-tables.ts";
import { configFor, testSidecar } from "./support/sidecar.ts";

const grants = servingGrants("plugin_sidecar");
const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

function granted(kind: string): string[] {
  return grants.filter((grant) => grant.kind === kind).map((grant) => grant.name);
}

/** A role of a test's own; what it was granted goes with the database. */
async function withRole(
  database: TestDatabase,
  role: string,
  work: (url: string) => Promise<void>,
): Promise<void> {
  const quoted = `"${role.replaceAll('"', '""')}"`;
  await database.query(`create role ${quoted} login`);
  try {
    const url = new URL(database.ownerUrl);
    url.username = encodeURIComponent(role);
    await work(url.href);
  } finally {
    await database.query(`drop owned by ${quoted}; drop role ${quoted}`);
  }
}

/** Of whoever migrates, who attaches; and of the triggers. */
const ownersFunctions = ["attach_next_plugin", "begin_attachment", "note_trigger_fault"];

test("every table and function of the schema is granted, but for those of its owner, and nothing else", async () => {
  await using database = await testDatabase();
  const tables = await database.query<{ name: string }>(
    `select relname as name from pg_class
      where relnamespace = 'plugin_sidecar'::regnamespace and relkind = 'r'`,
  );
  expect(granted("table").toSorted()).toEqual(tables.map((table) => table.name).toSorted());
  const functions = await database.query<{ name: string }>(
    `select proname as name from pg_proc
      where pronamespace = 'plugin_sidecar'::regnamespace and prorettype <> 'trigger'::regtype`,
  );
  const all = functions.map((one) => one.name).toSorted();
  expect([...granted("function"), ...ownersFunctions].toSorted()).toEqual(all);
});

test("nobody may call a function of the schema without having been granted it", async () => {
  await using database = await testDatabase();
  const open = await database.query<{ name: string }>(
    `select proname as name from pg_proc
      where pronamespace = 'plugin_sidecar'::regnamespace and has_function_privilege('public', oid, 'execute')`,
  );
  expect(open).toEqual([]);
});

test("the serving role makes nothing, empties nothing and registers nobody", async () => {
  await using database = await testDatabase();
  const results = await examine(database.connection, {
    stateSchema: "plugin_sidecar",
    role: servingRole,
    isEmbedded: false,
  });
  for (const check of ["grants", "least-privilege"]) {
    expect(results.find((result) => result.name === check)).toMatchObject({ verdict: "ok" });
  }
  for (const forbidden of [
    "create table plugin_sidecar.t ()",
    "create function plugin_sidecar.f() returns int language sql return 1",
    "truncate plugin_sidecar.plugin_state",
    "insert into plugin_sidecar.plugins (plugin_key, package_name, version, manifest_json) values ('a', 'a', '1', '{}')",
    "insert into plugin_sidecar.external_writes (plugin_id, xact, id, kind, written_at) values (gen_random_uuid(), 1, 1, 'truncate', now())",
    "update plugin_sidecar.external_writes set xact = 1",
    "delete from plugin_sidecar.trigger_faults",
    "select plugin_sidecar.begin_attachment()",
    "select plugin_sidecar.attach_next_plugin()",
    "alter table plugin_sidecar.plugin_state disable trigger all",
    "update plugin_sidecar.installation set schema_of_state = 'a'",
  ]) {
    const tried = database.query(`begin; set local role ${servingRole}; ${forbidden}`);
    await expect(tried, forbidden).rejects.toMatchObject({ code: "42501" });
    await database.query("rollback");
  }
});

test("what `plugin-state grants` prints lets a role serve, whatever its name is", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const role = `Odd "role"; drop table x; -- ${Math.random()}`;
  await withRole(database, role, async (url) => {
    const { code, stdout } = await run(["grants", role]);
    expect(code).toBe(0);
    await database.query(stdout);

    const asRole = { kind: "url" as const, url };
    await using sidecar = await testSidecar(database, ["demo"], { database: asRole });
    await sidecar.client.call("set", { ...name, valueJson: "1" });
    expect((await sidecar.client.call("get", name)).entry?.valueJson).toBe("1");
  });
});

test("sidecars with a role for migrations grant the serving one what it lacks, all at once", async () => {
  await using database = await testDatabase("template0");
  await withRole(database, `serving_${Math.random().toString(36).slice(2)}`, async (url) => {
    const config = {
      ...configFor(url, ["demo"]),
      database: { kind: "url" as const, url, migrationUrl: database.ownerUrl },
      poolSize: 1,
    };
    const start = () => startSidecar(config, createLog("silent"), new AbortController().signal);
    // Nobody is registered yet: all but that is done.
    const first = await start();
    expect(first.bindings).toMatchObject([{ plugin: "demo", pluginId: null }]);
    await first.stop();
    await database.addPlugin("demo");
    await database.query(
      `revoke all on all tables in schema plugin_sidecar from "${new URL(url).username}"`,
    );
    const sidecars = await Promise.all(Array.from({ length: 6 }, start));
    using client = new TestClient(sidecars[0]!.bindings[0]!.address);
    expect(await client.call("set", { ...name, valueJson: "1" })).toMatchObject({ created: true });
    await Promise.all(sidecars.map((sidecar) => sidecar.stop()));
  });
});

test("`plugin-state migrate` with both URLs in files leaves a role that may serve, and nothing more", async () => {
  await using database = await testDatabase("template0");
  const directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const [serving, owner] = ["serving-url", "owner-url"].map((file) => join(directory, file));
  const role = `serving_${Math.random().toString(36).slice(2)}`;
  await withRole(database, role, async (url) => {
    writeFileSync(serving!, url);
    writeFileSync(owner!, database.ownerUrl);
    const urls = ["--database-url-file", serving!, "--migration-database-url-file", owner!];

    expect(await run(["migrate", ...urls])).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^(adding|building) .*\n((adding|building) .*\n)*$/),
    });

    const { stdout } = await run(["doctor", "--json", "--database-url-file", serving!]);
    const { checks } = JSON.parse(stdout);
    for (const check of ["grants", "least-privilege"]) {
      expect(checks).toContainEqual(expect.objectContaining({ name: check, verdict: "ok" }));
    }
  });
});

test("attached to the host's tables, with an owner that is no superuser, each role does its part", async () => {
  await using database = await testDatabase("template0");
  const unique = Math.random().toString(36).slice(2);
  await withRole(database, `owner_${unique}`, async (ownerUrl) => {
    await database.query(
      `do $$ begin execute format('grant create on database %I to owner_${unique}', current_database()); end $$;
       grant create on schema public to owner_${unique}`,
    );
    await withClient({ connectionString: ownerUrl }, (owner) => owner.query(hostTables));
    await withRole(database, `serving_${unique}`, async (url) => {
      const config = configFor(url, ["demo"]);
      const sidecar = await startSidecar(
        {
          ...config,
          database: { kind: "url", url, migrationUrl: ownerUrl },
          stateSchema: "public",
        },
        createLog("silent"),
        new AbortController().signal,
      );
      using client = new TestClient(sidecar.bindings[0]!.address);
      await client.call("set", { ...name, valueJson: "1" });
      await withClient({ connectionString: ownerUrl }, (owner) =>
        owner.query("update plugin_state set value_json = '2'"),
      );
      const { entry } = await client.call("get", name);
      expect(entry).toMatchObject({ valueJson: "2", revision: 2n });
      const examined = await examine(
        { connectionString: url },
        { stateSchema: "public", isEmbedded: false },
      );
      expect(examined.filter(({ verdict }) => verdict === "problem")).toEqual([]);
      expect(examined).toContainEqual(
        expect.objectContaining({ name: "least-privilege", verdict: "ok" }),
      );
      await sidecar.stop();
    });
  });
});

test("a role that lacks a right is refused at the start, with what it lacks", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  await database.query(
    `revoke execute on function plugin_sidecar.delete_range from ${servingRole}`,
  );
  await expect(testSidecar(database)).rejects.toMatchObject({
    reason: "DATABASE_PERMISSION",
    exitCode: ExitCode.noPermission,
    retryable: false,
    message: `role ${servingRole} lacks EXECUTE on function "plugin_sidecar"."delete_range"`,
    hint: expect.stringContaining("plugin-state grants"),
  });
});

test("the SQL of the grants names each object with its schema, quoted", () => {
  const sql = grantStatements(servingGrants('Ho"st'), "app").join("\n");
  expect(sql).toContain('grant usage on schema "Ho""st" to "app";');
  expect(sql).toContain(
    'grant select, insert, update, delete on table "Ho""st"."plugin_state" to "app";',
  );
});

test("every function that a statement calls has a search path of its own, or needs none", async () => {
  await using database = await testDatabase();
  const called = Object.values(statements)
    .map((statement) => ("text" in statement ? statement.text : ""))
    .flatMap((text) => [...text.matchAll(/plugin_sidecar\.(\w+)\(/g)].map(([, one]) => one));
  expect(called).toContain("write_entries");
  const fixed = await database.query<{ name: string }>(
    `select proname as name from pg_proc
      where pronamespace = 'plugin_sidecar'::regnamespace and 'search_path=pg_catalog, pg_temp' = any (proconfig)`,
  );
  // All types in it are exact: see the next test.
  const needsNone = ["microseconds"];
  expect([...needsNone, ...fixed.map((one) => one.name)]).toEqual(expect.arrayContaining(called));
});

test("another role's operator on the search path isn't called", async () => {
  await using database = await testDatabase();
  await using sidecar = await testSidecar(database);
  // pg_catalog multiplies no bigint with an interval, so this one would fit better.
  await database.query(
    `create function public.foreign_hand(bigint, interval) returns interval language plpgsql
       as 'begin raise exception ''called''; end';
     create operator public.* (leftarg = bigint, rightarg = interval, function = public.foreign_hand);
     create function public.foreign_hand(float8, int) returns float8 language plpgsql
       as 'begin raise exception ''called''; end';
     create operator public.* (leftarg = float8, rightarg = int, function = public.foreign_hand);
     grant execute on all functions in schema public to public`,
  );
  await expect(database.query("select 1::bigint * interval '1 s'")).rejects.toThrow("called");
  await expect(database.query("select 1::float8 * 1")).rejects.toThrow("called");

  const set = sidecar.client.call("set", { ...name, valueJson: "1", ttl: { seconds: 60n } });
  expect(await set).toMatchObject({ created: true });
  const names = [name, { ...name, key: "l" }];
  const { results } = await sidecar.client.call("batchGet", { names });
  expect(results.map(({ entry }) => entry?.valueJson)).toEqual(["1", undefined]);
});

test.each([
  [true, 1],
  [false, 0],
])(
  "with namedStatements %s the server keeps %d statement of a connection",
  async (namedStatements, kept) => {
    await using database = await testDatabase();
    const pool = new Pool({
      connection: { ...database.connection, namedStatements },
      connections: 1,
      timeoutMs: 10_000,
      log: createLog("silent"),
      onConnectionFailure: () => {},
    });
    const count = {
      name: "count",
      text: "select count(*)::int4 as kept from pg_prepared_statements where name <> ''",
    };
    await pool.run(count, []);
    expect(await pool.run(count, [])).toEqual([{ kept }]);
    await pool.close();
  },
);
