import { randomUUID } from "node:crypto";
import { describe, expect, inject, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { withClient } from "../src/postgres/connection.ts";
import { migrate } from "../src/postgres/migrate.ts";
import { sessionSettings } from "../src/postgres/session-settings.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { servingRole } from "./support/global-setup.ts";
import { hostileSettings, letServingRoleBeginWith } from "./support/hostile-settings.ts";
import { testSidecar } from "./support/sidecar.ts";

const scope = { kind: ScopeKind.ISSUE, id: "I" };

/** A database where the serving role's sessions begin with the opposite of all that they need. */
async function hostileDatabase(): Promise<TestDatabase> {
  const database = await testDatabase();
  for (const [name, value] of Object.entries(hostileSettings)) {
    await database.query(letServingRoleBeginWith(name, value));
  }
  const hasTransactionTimeout = "current_setting('transaction_timeout', true) is not null as has";
  const [row] = await database.query<{ has: boolean }>(`select ${hasTransactionTimeout}`);
  if (row?.has) {
    await database.query(letServingRoleBeginWith("transaction_timeout", "50"));
  }
  return database;
}

describe.skipIf(inject("isPooled"))("a role whose sessions begin with hostile settings", () => {
  test("is served rightly: Get, Set, List, Transact, Update, DeleteRange", async () => {
    await using database = await hostileDatabase();
    await using sidecar = await testSidecar(database);
    const { client } = sidecar;
    const backslash = { scope, namespace: "n\\'", key: "k\\\\null" };

    await client.call("set", { ...backslash, valueJson: '"a\\\\b\\n"', requestId: randomUUID() });
    const sets = ["NULL", "null", "b"].map((key) => ({
      operation: { case: "set" as const, value: { scope, key, valueJson: "[null, 1.50]" } },
    }));
    await client.call("transact", { operations: sets });
    const instance = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
    await client.call("set", { ...instance, valueJson: "1", ttl: { seconds: 60n } });
    const change = { case: "increment" as const, value: { by: "2" } };
    await client.call("update", { ...instance, change });
    await client.call("delete", { scope, key: "b" });

    expect((await client.call("get", backslash)).entry?.valueJson).toBe('"a\\\\b\\n"');
    expect((await client.call("get", instance)).entry?.valueJson).toBe("3");
    const { entries } = await client.call("list", { scope });
    expect(entries.map(({ key }) => key)).toEqual(["NULL", "null"]);
    const scopes = await client.call("listScopes", {});
    expect(scopes.scopes).toHaveLength(3);
    await client.call("deleteRange", { scope, prefix: "N" });
    expect((await client.call("list", { scope })).entries).toHaveLength(1);
  });

  test("doesn't make writers of one plugin fail, who wait for each other", async () => {
    await using database = await hostileDatabase();
    const one = { sweepIntervalMs: 3_600_000, coalescing: false };
    await using first = await testSidecar(database, ["demo"], one);
    await using second = await testSidecar(database, ["demo"], one);
    const writes = Array.from({ length: 400 }, (_, n) => {
      const { client } = n % 2 === 0 ? first : second;
      return client.call("set", { scope, key: `k${n % 10}`, valueJson: `${n}` });
    });

    const revisions = (await Promise.all(writes)).map(({ revision }) => Number(revision));

    expect(new Set(revisions).size).toBe(400);
    expect(Math.max(...revisions) - Math.min(...revisions)).toBe(399);
  });
});

const servingConnection = (database: TestDatabase, query = "") => {
  const url = new URL(database.ownerUrl);
  url.username = servingRole;
  return { connectionString: `${url.href}${query}` };
};

async function settingsOf(connection: { connectionString: string }) {
  return await withClient(connection, async (client) => {
    const { rows } = await client.query<{ name: string; setting: string }>(
      "select name, setting from pg_settings",
    );
    return new Map(rows.map(({ name, setting }) => [name, setting]));
  });
}

test("sessions of migrations and of doctor have the settings they need, too", async () => {
  await using database = await hostileDatabase();

  const settings = await settingsOf(servingConnection(database));

  const wrong = sessionSettings.filter(({ name, value }) => {
    const setting = settings.get(name);
    return setting !== undefined && setting !== value;
  });
  expect(wrong).toEqual([]);
  expect(settings.get("synchronous_commit")).toBe("on");
});

test("a database whose sessions begin with hostile settings is migrated all the same", async () => {
  await using database = await testDatabase("template0");
  for (const [name, value] of Object.entries(hostileSettings)) {
    await database.query(
      `do $$ begin execute format('alter database %I set ${name} = %L', current_database(), '${value}'); end $$`,
    );
  }

  const ran = await migrate(database.connection, "plugin_sidecar");

  expect(ran.length).toBeGreaterThan(0);
});

test("synchronous_commit stays off for who asks for it in the database URL", async () => {
  await using database = await testDatabase();
  const asked = "&options=-c%20synchronous_commit%3Doff";

  const settings = await settingsOf(servingConnection(database, asked));

  expect(settings.get("synchronous_commit")).toBe("off");
});

test("a role whose transactions are read-only is refused as that, not overruled", async () => {
  await using database = await testDatabase();
  await database.query(letServingRoleBeginWith("default_transaction_read_only", "on"));

  const settings = await settingsOf(servingConnection(database));

  expect(settings.get("default_transaction_read_only")).toBe("on");
});
