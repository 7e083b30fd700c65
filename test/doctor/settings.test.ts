import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { examine, type Result } from "../../src/postgres/doctor/examine.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { servingRole } from "../support/global-setup.ts";
import { letServingRoleBeginWith } from "../support/hostile-settings.ts";
import { limits } from "./attached-database.ts";

const isPooled = inject("isPooled");

let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase("template0");
});

afterEach(async () => {
  await database[Symbol.asyncDispose]();
});

const options = { stateSchema: "plugin_sidecar", isEmbedded: false, limits };

async function settingsOf(url: string): Promise<Result | undefined> {
  const connection = { connectionString: url, namedStatements: false };
  const results = await examine(connection, { ...options, role: servingRole });
  return results.find(({ name }) => name === "settings");
}

test("settings that the sidecar's sessions override are told, and fine", async () => {
  await database.query(letServingRoleBeginWith("default_transaction_isolation", "serializable"));
  await database.query(letServingRoleBeginWith("statement_timeout", "10ms"));
  expect(await settingsOf(database.ownerUrl)).toMatchObject({
    verdict: "ok",
    message: expect.stringMatching(
      /statement_timeout = 10ms, default_transaction_isolation = serializable.*set what they need/,
    ),
  });
});

test.runIf(isPooled)("behind a pooler they are a problem, with the SQL that mends it", async () => {
  await database.query(letServingRoleBeginWith("default_transaction_isolation", "serializable"));
  await database.query(letServingRoleBeginWith("lock_timeout", "1s"));
  const found = await settingsOf(database.url);
  expect(found).toMatchObject({
    verdict: "problem",
    message: expect.stringMatching(/lock_timeout = 1s, default_transaction_isolation = serial/),
  });
  for (const step of found?.remedy ?? []) {
    if ("sql" in step) await database.query(step.sql);
  }
  expect(await settingsOf(database.url)).toMatchObject({ verdict: "ok" });
});

test("whoever writes as a replica does isn't noticed by triggers, and is named", async () => {
  await database.query(letServingRoleBeginWith("session_replication_role", "replica"));
  const found = await settingsOf(database.ownerUrl);
  expect(found).toMatchObject({
    verdict: "problem",
    message: expect.stringMatching(`is replica for role ${servingRole}`),
  });
  for (const step of found?.remedy ?? []) {
    if ("sql" in step) await database.query(step.sql);
  }
  expect(await settingsOf(database.ownerUrl)).toMatchObject({ verdict: "ok" });
});

test("indexes that are switched off for the role are a warning", async () => {
  await database.query(letServingRoleBeginWith("enable_indexscan", "off"));
  expect(await settingsOf(database.ownerUrl)).toMatchObject({
    verdict: "warning",
    remedy: expect.arrayContaining([
      { sql: expect.stringMatching(/^alter role .* set enable_indexscan = on;$/) },
    ]),
  });
});
