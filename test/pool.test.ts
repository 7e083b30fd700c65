import { setImmediate as turn } from "node:timers/promises";
import type { PoolClient } from "pg";
import { expect, onTestFinished, test } from "vitest";
import { createLog } from "../src/log.ts";
import { isTimeout } from "../src/postgres/errors.ts";
import { Pool } from "../src/postgres/pool.ts";
import { SpareClients } from "../src/postgres/spare-clients.ts";
import { testDatabase } from "./support/database.ts";

const session = { name: "session", text: "select pg_backend_pid() as pid" };
const slow = { name: "slow", text: "select pg_backend_pid() as pid, pg_sleep(0.05)" };

/** A pool, and the statements that have gone out, by name. */
async function testPool(connections: number, timeoutMs = 10_000) {
  const database = await testDatabase();
  const sent: string[] = [];
  const pool = new Pool({
    connection: database.connection,
    connections,
    timeoutMs,
    log: createLog("silent"),
    onConnectionFailure: () => {},
    observer: {
      waits: (statement) => ({
        sent: () => void sent.push(statement),
        ended: () => {},
        failed: () => {},
      }),
    },
  });
  onTestFinished(async () => {
    await pool.close();
    await database[Symbol.asyncDispose]();
  });
  const pidOf = async () => (await pool.run<{ pid: string }>(session, []))[0]!.pid;
  return { pool, sent, pidOf };
}

test("what follows a statement in its turn goes out at once, on the same connection", async () => {
  const { pool, sent, pidOf } = await testPool(3);
  const before = await pidOf();
  expect(sent).toHaveLength(1);

  const after = pidOf();
  expect(sent, "without a turn or a tick").toHaveLength(2);

  expect(await after).toBe(before);
  expect(pool.size).toBe(1);
});

test("a connection that nothing follows on is given back in the same turn", async () => {
  const { pool, pidOf } = await testPool(1);
  const before = await pidOf();
  expect(pool.idle).toBe(0);

  await turn();

  expect(pool.idle).toBe(1);
  expect(await pidOf()).toBe(before);
});

test("who waited for a connection is first", async () => {
  const { pool, sent, pidOf } = await testPool(1);
  const first = pidOf();
  const waited = pool.run(slow, []);
  await first;
  const late = pidOf();

  await Promise.all([waited, late]);

  expect(sent).toEqual(["session", "slow", "session"]);
});

test("a connection from before the pool was retired isn't used again, whenever that is", async () => {
  const { pool, pidOf } = await testPool(1);
  const first = await pidOf();
  pool.retire();
  const second = await pidOf();
  expect(second).not.toBe(first);
  await turn();
  pool.retire();
  expect(await pidOf()).not.toBe(second);
});

test("a connection that breaks before its turn is over is given up, once", async () => {
  const released: unknown[] = [];
  const client = (name: string) =>
    ({ release: (isBroken: unknown) => released.push([name, isBroken]) }) as unknown as PoolClient;
  const [broken, good] = [client("broken"), client("good")];
  const spare = new SpareClients();
  spare.put(good);
  spare.put(broken);

  spare.drop(broken);
  spare.drop(broken);
  expect(released).toEqual([["broken", true]]);
  expect(spare.take(() => true)).toBe(good);
  spare.put(good);
  await turn();

  expect(released).toEqual([
    ["broken", true],
    ["good", undefined],
  ]);
});

test("a statement that takes too long is given up with its connection, and others go on", async () => {
  const { pool, pidOf } = await testPool(1, 2_000);
  const before = await pidOf();
  const late = pool.run({ name: "late", text: "select pg_sleep(60)" }, []);

  await expect(late).rejects.toSatisfy(isTimeout);

  expect(await pidOf()).not.toBe(before);
  expect(pool.size).toBe(1);
});
