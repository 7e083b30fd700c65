import { describe, expect, test } from "vitest";
import { servingRole } from "../support/global-setup.ts";
import { followAdvice, take } from "./advice.ts";
import { entriesOf, instance } from "./entries.ts";
import { HostDatabase } from "./host-database.ts";
import { AttachedSidecar, attach, checksOf, command, problemsOf } from "./sidecar.ts";

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

test("a database that the host hasn't migrated yet: doctor says that the host has to, and what comes then", async () => {
  await using database = await HostDatabase.create("newer", "template0");

  const [problem, ...others] = await problemsOf(database);
  expect(problem?.message).toMatch(/no tables plugins and plugin_state, which are the host's/);
  expect(problem?.remedy?.[0]).toEqual({
    say: expect.stringMatching(/host .* its own migrations/),
  });
  expect(others).toEqual([]);

  await database.host.db.applyPendingMigrations(database.url);
  await database.addPlugin("demo");
  expect(await followAdvice(database, "--role", servingRole)).toEqual([]);
  await using sidecar = await AttachedSidecar.start(database);
  await sidecar.client.call("set", { scope: instance, key: "a", valueJson: "1" });
});

/** Rows that the host's store takes and no call of the sidecar's can name. */
const unreachable = {
  "an empty scope id": ["issue", "", "default"],
  "an empty namespace": ["instance", null, ""],
  "a scope kind that there isn't": ["planet", "x", "default"],
  "a company without an id": ["company", null, "default"],
  "an instance with an id": ["instance", "x", "default"],
} as const;

test.each(Object.entries(unreachable))(
  "a row with %s is named by doctor, and reached or gone when its SQL has been run",
  async (_what, [kind, id, namespace]) => {
    await using database = await HostDatabase.create();
    const pluginId = await database.addPlugin("demo");
    await attach(database);
    const { stdout: before } = await command(database, "doctor", "--role", servingRole);
    await database.query(
      `insert into plugin_state (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
       values ($1, $2, $3, $4, 'k', '1')`,
      [pluginId, kind, id, namespace],
    );

    const checks = await checksOf(database, "--role", servingRole);
    const { remedy = [] } = checks.find(({ message }) => /no call/.test(message)) ?? {};
    expect(remedy).toContainEqual({ sql: expect.stringMatching(/;$/) });
    await take(database, remedy);
    const after = await command(database, "doctor", "--role", servingRole);
    expect(after.stdout.match(/^(warning|problem) .*/gm)).toEqual(
      before.match(/^(warning|problem) .*/gm),
    );
  },
);

test("settings of the role that would change what statements do are named, and nothing is changed by them", async () => {
  await using database = await HostDatabase.create();
  await database.addPlugin("demo");
  const settings = {
    statement_timeout: "'1ms'",
    lock_timeout: "'1ms'",
    default_transaction_isolation: "'serializable'",
    standard_conforming_strings: "off",
    datestyle: "'SQL, DMY'",
    timezone: "'Asia/Kathmandu'",
  };
  for (const [name, value] of Object.entries(settings)) {
    await database.query(
      `alter role ${servingRole} in database ${database.name} set ${name} = ${value}`,
    );
  }

  await attach(database);
  await using sidecar = await AttachedSidecar.start(database);
  const valueJson = String.raw`{"a": "\\' \u00e9"}`;
  await sidecar.client.call("set", { scope: instance, key: "a", valueJson, ttl: { seconds: 60n } });
  expect(await entriesOf(sidecar.client)).toMatchObject([
    { key: "a", valueJson: '{"a": "\\\\\' \u00e9"}' },
  ]);

  const { stdout } = await command(database, "doctor", "--role", servingRole);
  for (const name of [
    "statement_timeout",
    "default_transaction_isolation",
    "standard_conforming_strings",
  ]) {
    expect(stdout).toContain(name);
  }
});
