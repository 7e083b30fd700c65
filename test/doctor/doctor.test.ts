import pg from "pg";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ExamineOptions, examine, type Result } from "../../src/postgres/doctor/examine.ts";
import { judgePlain, judgeTls } from "../../src/postgres/doctor/way.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { databaseUrl, type TestDatabase, testDatabase } from "../support/database.ts";
import { servingRole } from "../support/global-setup.ts";
import { hostTables } from "../support/host-tables.ts";
import { attachedDatabase, examined, follow, limits } from "./attached-database.ts";

let database: TestDatabase;

beforeEach(async () => {
  database = await attachedDatabase();
});

afterEach(async () => {
  vi.useRealTimers();
  await database[Symbol.asyncDispose]();
});

/** One check's line. */
async function finding(
  name: string,
  options: Partial<ExamineOptions> & { as?: "owner" } = {},
): Promise<Result | undefined> {
  return (await examined(database, options)).find((one) => one.name === name);
}

/** Statements or commands are there to be run. */
const withSteps = (kind: "say" | "sql" | "run", pattern = /./) =>
  expect.arrayContaining([{ [kind]: expect.stringMatching(pattern) }]);

const defaults = { stateSchema: "plugin_sidecar", isEmbedded: false };
const onState = "on plugin_sidecar.plugin_state";
const alterState = "alter table plugin_sidecar.plugin_state";
const entryColumns = "(plugin_id, scope_kind, scope_id, namespace, state_key)";
const currentDatabase = (change: string) =>
  `do $$ begin execute format('alter database %I ${change}', current_database()); end $$`;

test("a migrated database with a serving role and a plugin has nothing but ok", async () => {
  const results = await examined(database);
  expect(results.filter(({ verdict }) => verdict !== "ok")).toEqual([]);
  expect(results.map(({ name }) => name)).toEqual([
    "connection",
    "tls",
    "pooler",
    "server-version",
    "writable",
    "encoding",
    "collation",
    "settings",
    "durability",
    "connections",
    "transactions",
    "clock",
    "row-security",
    "duplicates",
    "table",
    "names",
    "schema",
    "grants",
    "least-privilege",
    "columns",
    "triggers",
    "trigger-faults",
    "indexes",
    "counters",
    "vacuum",
    "plugins",
  ]);
});

describe("what a remedy says mends it:", () => {
  test.for<[check: string, verdict: string, message: RegExp, damage: string]>([
    [
      "grants",
      "problem",
      /lacks DELETE on table "plugin_sidecar"\."requests"; EXECUTE on function "plugin_sidecar"\."sweep"/,
      `revoke delete on plugin_sidecar.requests from ${servingRole};
       revoke execute on function plugin_sidecar.sweep from ${servingRole}`,
    ],
    [
      "grants",
      "problem",
      /lacks USAGE on schema "plugin_sidecar"/,
      `revoke usage on schema plugin_sidecar from ${servingRole}`,
    ],
    [
      "table",
      "problem",
      /NULLS NOT DISTINCT/,
      `${alterState} drop constraint plugin_state_unique_entry_idx,
         add constraint plugin_state_unique_entry_idx unique ${entryColumns}`,
    ],
    [
      "duplicates",
      "problem",
      /^1 entries are there more than once/,
      `${alterState} drop constraint plugin_state_unique_entry_idx;
       insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
       select id, 'instance', 'k', to_jsonb(n) from plugin_sidecar.plugins, generate_series(1, 3) n`,
    ],
    [
      "triggers",
      "problem",
      /disabled: plugin_sidecar_log_delete;/,
      `${alterState} disable trigger plugin_sidecar_log_delete`,
    ],
    [
      "triggers",
      "problem",
      /missing: plugin_sidecar_log_truncate/,
      `drop trigger plugin_sidecar_log_truncate ${onState}`,
    ],
    ["columns", "problem", /missing: sidecar_bytes/, `${alterState} drop sidecar_bytes`],
    [
      "columns",
      "problem",
      /of another type: sidecar_write_id bigint/,
      `${alterState} drop sidecar_write_id; ${alterState} add sidecar_write_id bigint`,
    ],
    [
      "columns",
      "problem",
      /without their defaults: sidecar_write_id, sidecar_created_at/,
      `${alterState} alter sidecar_write_id drop default, alter sidecar_created_at drop default`,
    ],
    [
      "indexes",
      "warning",
      /plugin_sidecar_expiry_idx, requests_expiry_idx/,
      "drop index plugin_sidecar.plugin_sidecar_expiry_idx, plugin_sidecar.requests_expiry_idx",
    ],
    [
      "indexes",
      "problem",
      /invalid.*plugin_state_plugin_scope_idx/,
      `update pg_index set indisvalid = false
        where indexrelid = 'plugin_sidecar.plugin_state_plugin_scope_idx'::regclass`,
    ],
  ])("%s %s %s", async ([check, verdict, message, damage]) => {
    await database.query(damage);

    const found = await finding(check, { as: "owner", role: servingRole });
    expect(found).toMatchObject({ verdict, message: expect.stringMatching(message) });
    await follow(database, found?.remedy);
    expect(await finding(check, { as: "owner", role: servingRole })).toMatchObject({
      verdict: "ok",
    });
  });
});

describe("said, with what to do about it:", () => {
  test.for<[check: string, verdict: string, message: RegExp, damage: string]>([
    ["writable", "problem", /read-only/, currentDatabase("set default_transaction_read_only = on")],
    [
      "connections",
      "warning",
      /of the database are in use/,
      currentDatabase("connection limit 40"),
    ],
    [
      "schema",
      "problem",
      /lacks migrations of this release: 0008/,
      "delete from plugin_sidecar.migrations where name like '0008%'",
    ],
    [
      "schema",
      "problem",
      /a newer release has migrated/,
      "insert into plugin_sidecar.migrations (name, run_on) values ('9999_x', now())",
    ],
    [
      "schema",
      "problem",
      /state is in schema elsewhere/,
      "update plugin_sidecar.installation set schema_of_state = 'elsewhere'",
    ],
    ["table", "problem", /lacks columns: updated_at timestamptz$/, `${alterState} drop updated_at`],
    [
      "vacuum",
      "warning",
      /autovacuum is off for plugin_state/,
      `${alterState} set (autovacuum_enabled = off)`,
    ],
    ["plugins", "warning", /none is registered/, "delete from plugin_sidecar.plugins"],
    [
      "least-privilege",
      "warning",
      /has TRUNCATE, TRIGGER on table "plugin_sidecar"\."plugin_state" without need/,
      `grant truncate, trigger ${onState} to ${servingRole}`,
    ],
    [
      "least-privilege",
      "warning",
      /may create in the schemas/,
      `grant create on schema plugin_sidecar to ${servingRole}`,
    ],
  ])("%s %s %s", async ([check, verdict, message, damage]) => {
    await database.query(damage);
    expect(await finding(check)).toMatchObject({
      verdict,
      message: expect.stringMatching(message),
      remedy: withSteps("say", /.{10}/),
    });
  });
});

test("synchronous_commit may be off for the role: a sidecar that isn't pooled switches it on", async () => {
  await database.query(currentDatabase("set synchronous_commit = off"));
  expect(await finding("durability")).toMatchObject({
    verdict: "ok",
    message: expect.stringMatching(/synchronous_commit is on/),
  });
});

test("synchronous_commit that the database URL switches off is a problem", async () => {
  const asked = `${database.ownerUrl}&options=-c%20synchronous_commit%3Doff`;
  const results = await examine({ connectionString: asked }, { ...defaults, limits });
  expect(results.find(({ name }) => name === "durability")).toMatchObject({
    verdict: "problem",
    message: expect.stringMatching(/synchronous_commit is off: a crash may lose/),
  });
});

test("a role that owns everything is more than serving needs, but for the embedded database", async () => {
  const owner = await finding("least-privilege", { as: "owner" });
  expect(owner).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/is a superuser$/),
  });
  const embedded = await finding("least-privilege", { as: "owner", isEmbedded: true });
  expect(embedded).toMatchObject({ verdict: "ok" });
});

test("the owner of the tables is told to be one without being a superuser", async () => {
  const name = `owner_${Math.random().toString(36).slice(2)}`;
  await database.query(`create role ${name} login; ${alterState} owner to ${name}`);
  try {
    const found = await finding("least-privilege", { as: "owner", role: name });
    expect(found).toMatchObject({ verdict: "warning", message: `role ${name} owns the tables` });
  } finally {
    await database.query(`drop owned by ${name} cascade; drop role ${name}`);
  }
});

test("a role that may not log in, or not connect, is a problem of permission", async () => {
  const monitor = await finding("grants", { as: "owner", role: "pg_monitor" });
  expect(monitor).toMatchObject({
    kind: "permission",
    remedy: withSteps("sql", /^alter role "pg_monitor" login;$/),
  });
  await database.query(
    "do $$ begin execute format('revoke connect on database %I from public', current_database()); end $$",
  );
  const cut = await finding("grants", { as: "owner", role: servingRole });
  expect(cut).toMatchObject({
    kind: "permission",
    remedy: withSteps("sql", /^grant connect on database/),
  });
  await follow(database, cut?.remedy);
  expect(await finding("grants", { as: "owner", role: servingRole })).toMatchObject({
    verdict: "ok",
  });
});

test("a role that can't see the schema is told what it lacks, and the rest goes on", async () => {
  await database.query(`revoke all on schema plugin_sidecar from ${servingRole}`);
  const results = await examined(database);
  const of = (name: string) => results.find((one) => one.name === name);
  expect(of("schema")).toMatchObject({
    kind: "permission",
    message: expect.stringMatching(/may not look/),
  });
  expect(of("grants")).toMatchObject({
    kind: "permission",
    remedy: withSteps("sql", /^grant usage on schema/),
  });
  expect(of("writable")).toMatchObject({ verdict: "ok" });
});

test("what is in a schema isn't looked at where there is none", async () => {
  await using bare = await testDatabase("template0");
  const results = await examine(bare.connection, {
    stateSchema: "plugin_sidecar",
    isEmbedded: false,
  });
  expect(results.at(-1)).toMatchObject({
    name: "schema",
    verdict: "problem",
    kind: "configuration",
    remedy: withSteps("run", /^plugin-state migrate$/),
  });
});

test("a host's table in another collation needs the indexes in byte order", async () => {
  await using attached = await testDatabase("template0");
  await attached.query(hostTables);
  await migrate(attached.connection, "public");
  const options = { stateSchema: "public", isEmbedded: false, limits };
  const indexes = async () =>
    (await examine(attached.connection, options)).find(({ name }) => name === "indexes");
  expect(await indexes()).toMatchObject({ verdict: "ok" });

  await attached.query("drop index plugin_sidecar_key_order_idx, plugin_sidecar_scope_order_idx");

  const found = await indexes();
  expect(found).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/key_order_idx.*scope_order_idx/),
  });
  expect(found?.remedy).toEqual([{ run: "plugin-state migrate --state-schema public" }]);
  await migrate(attached.connection, "public");
  expect(await indexes()).toMatchObject({ verdict: "ok" });
});

test("an index that is being built isn't taken for one that a killed build left", async () => {
  const writer = new pg.Client(database.connection);
  await writer.connect();
  // A build waits for every transaction that began before it.
  await writer.query("begin; update plugin_sidecar.plugin_state set updated_at = now()");
  const built = database.query(
    "create index concurrently another_idx on plugin_sidecar.plugin_state (updated_at)",
  );
  for (const as of [{}, { as: "owner" as const }]) {
    await expect
      .poll(() => finding("indexes", as))
      .toMatchObject({
        verdict: "warning",
        message: expect.stringMatching(/^being built: another_idx/),
      });
  }
  await writer.end();
  await built;
  expect(await finding("indexes")).toMatchObject({ verdict: "ok" });
});

test("a database that can't hold every character is a problem", async () => {
  const name = `test_ascii_${Math.random().toString(36).slice(2)}`;
  await database.query(
    `create database ${name} template template0 encoding 'SQL_ASCII' locale 'C'`,
  );
  try {
    const connectionString = databaseUrl(database.ownerUrl, name);
    const results = await examine(
      { connectionString },
      { stateSchema: "plugin_sidecar", isEmbedded: false },
    );
    expect(results.find((one) => one.name === "encoding")).toMatchObject({
      verdict: "problem",
      message: expect.stringMatching(/SQL_ASCII/),
    });
  } finally {
    await database.query(`drop database ${name} with (force)`);
  }
});

test("a system that sorts otherwise than when the database was made is warned of", async () => {
  const name = `test_icu_${Math.random().toString(36).slice(2)}`;
  await database.query(
    `create database ${name} template template0 locale_provider icu icu_locale 'en-US'`,
  );
  try {
    const connectionString = databaseUrl(database.ownerUrl, name);
    const collation = async () => {
      const options = { stateSchema: "plugin_sidecar", isEmbedded: false };
      const results = await examine({ connectionString }, options);
      return results.find((one) => one.name === "collation");
    };
    expect(await collation()).toMatchObject({ verdict: "ok" });
    await database.query("update pg_database set datcollversion = '1' where datname = $1", [name]);
    expect(await collation()).toMatchObject({
      verdict: "warning",
      message: expect.stringMatching(/version 1, /),
    });
  } finally {
    await database.query(`drop database ${name} with (force)`);
  }
});

test("the default schema is told, too, for the environment may name another", async () => {
  const results = await examined(database, { stateSchema: "public" });
  expect(results.at(-1)).toMatchObject({
    name: "schema",
    verdict: "problem",
    remedy: withSteps("run", /^plugin-state doctor --state-schema plugin_sidecar$/),
  });
});

test("a transaction that is open for long is named", async () => {
  const client = new pg.Client({ ...database.connection, application_name: "sleeper" });
  await client.connect();
  await client.query("begin");
  const strict = { limits: { ...limits, transactionSeconds: 0 } };
  const owners = await finding("transactions", { as: "owner", ...strict });
  expect(owners).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/process \d+ of sleeper for \d+ s/),
  });
  await client.end();
});

test("a table with more dead rows than live ones is named", async () => {
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
     select id, 'instance', n::text, '1' from plugin_sidecar.plugins, generate_series(1, 20) n`,
  );
  await database.query("delete from plugin_sidecar.plugin_state");
  const strict = { limits: { ...limits, deadRows: 5 } };
  await expect
    .poll(() => finding("vacuum", strict), { timeout: 20_000 })
    .toMatchObject({
      verdict: "warning",
      message: expect.stringMatching(/plugin_state has \d+ dead rows beside 0/),
    });
});

test("a table that wasn't frozen for long is named", async () => {
  const found = await finding("vacuum", { limits: { ...limits, frozenAge: -1 } });
  expect(found).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/wasn't frozen for \d+ trans/),
  });
});

test("clocks that differ are said to, by how much and in which direction", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 3_600_000 });
  expect(await finding("clock")).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/^the database's clock is 3[56]\d\d\.\d s ahead of/),
  });
});

test("a connection to another machine should have TLS, with a certificate that is verified", () => {
  for (const near of [undefined, "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"]) {
    expect(judgePlain(near).verdict).toBe("ok");
  }
  for (const far of ["10.0.0.1", "128.0.0.1", "::2", "fe80::1", "::ffff:10.0.0.1"]) {
    expect(judgePlain(far).verdict).toBe("warning");
  }
  expect([judgeTls(true).verdict, judgeTls(false).verdict]).toEqual(["ok", "warning"]);
});

test("a server before PostgreSQL 15 is told to be too old, and nothing else is looked at", async () => {
  const results = await examined(database, { limits: { ...limits, minServerVersion: 990_000 } });
  expect(results.map(({ name }) => name).slice(-2)).toEqual(["server-version", "writable"]);
  expect(results.at(-2)).toMatchObject({
    name: "server-version",
    verdict: "problem",
    message: expect.stringMatching(/^PostgreSQL \d+.* is too old$/),
    remedy: withSteps("say", /PostgreSQL 15 or later/),
  });
});
