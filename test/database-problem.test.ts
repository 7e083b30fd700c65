import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { testSidecar } from "./support/sidecar.ts";

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
let database: TestDatabase;

beforeEach(async () => {
  database = await testDatabase();
});

afterEach(async () => {
  await database[Symbol.asyncDispose]();
});

test("while something is wrong with the database no call is answered from it, and health says so", async () => {
  await using running = await testSidecar(database);
  const { client, address } = running;
  await client.call("set", { ...name, valueJson: "1" });

  await database.query(
    "insert into plugin_sidecar.trigger_faults (at, problem) values (now(), 'the triggers are gone')",
  );

  await expect.poll(() => healthOf(address)).toBe("NOT_SERVING");
  expect(await failure(client.call("get", name))).toMatchObject({
    codeName: "UNAVAILABLE",
    reason: "DATABASE_UNAVAILABLE",
    retryAfter: true,
  });

  await database.query("truncate plugin_sidecar.trigger_faults");

  await expect.poll(() => healthOf(address)).toBe("SERVING");
  expect((await client.call("get", name)).entry?.valueJson).toBe("1");
});
