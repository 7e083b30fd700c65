import { afterEach, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { checkWritable } from "../src/postgres/statements.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { testSidecar } from "./support/sidecar.ts";

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
const original = checkWritable.text;
let database: TestDatabase;

/** Has the monitor's question find what a table of the test's says. */
beforeEach(async () => {
  database = await testDatabase();
  await database.query(
    `create table problems (problem text);
     grant select on problems to public;
     insert into problems values (null)`,
  );
  Object.assign(checkWritable, {
    text: `select p.problem, c.* from (${original.replace(/,\s*null::text as problem/, "")}) c
             left join problems p on true`,
  });
});

afterEach(async () => {
  Object.assign(checkWritable, { text: original });
  await database[Symbol.asyncDispose]();
});

test("while something is wrong with the database no call is answered from it, and health says so", async () => {
  await using running = await testSidecar(database);
  const { client, address } = running;
  await client.call("set", { ...name, valueJson: "1" });

  await database.query("update problems set problem = 'the triggers are gone'");

  await expect.poll(() => healthOf(address)).toBe("NOT_SERVING");
  expect(await failure(client.call("get", name))).toMatchObject({
    codeName: "UNAVAILABLE",
    reason: "DATABASE_UNAVAILABLE",
    retryAfter: true,
  });

  await database.query("update problems set problem = null");

  await expect.poll(() => healthOf(address)).toBe("SERVING");
  expect((await client.call("get", name)).entry?.valueJson).toBe("1");
});
