import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { FaultProxy } from "../support/proxy.ts";
import { PostgresServer } from "./postgres-server.ts";
import { releasing } from "./resources.ts";
import { Round, rounds } from "./round.ts";
import { type Served, serve } from "./serve.ts";

const timeout = 60_000 + rounds * 20_000;
const use = releasing();

/** Breaks something while clients write, several times, and compares what they were told with what is there. */
async function goThrough(
  name: string,
  sidecar: () => Served,
  faults: readonly (() => Promise<void>)[],
): Promise<void> {
  for (let n = 0; n < rounds; n++) {
    const round = new Round(`${name}-${n}`, () => sidecar().client);
    try {
      await round.begin();
      for (const fault of faults) {
        // At any moment of a write.
        await pause(Math.random() * 20);
        await fault();
        await round.acknowledges(5);
      }
    } catch (error) {
      throw new Error(`round ${n + 1} failed; ${sidecar().condition()}`, { cause: error });
    } finally {
      await round.end();
    }
    console.info(`${name}, round ${n + 1}: ${await round.verify()}`);
  }
}

async function databaseWithDemo(): Promise<TestDatabase> {
  const database = use(await testDatabase());
  await database.addPlugin("demo");
  return database;
}

describe("writes are there exactly when it was said so", () => {
  test("after PostgreSQL was killed and started again, and service resumes", {
    timeout,
  }, async () => {
    const postgres = use(await PostgresServer.create({ fsync: "on" }));
    const sidecar = use(await serve(postgres.sidecarUrl));
    await goThrough("postgres", () => sidecar, [() => postgres.killAndStart()]);
  });

  test("after the sidecar was killed, and another one goes on", { timeout }, async () => {
    const { url } = await databaseWithDemo();
    let sidecar = use(await serve(url));
    const killAndStart = async () => {
      await sidecar.kill();
      sidecar = use(await serve(url));
    };
    await goThrough("sidecar", () => sidecar, [killAndStart]);
  });

  test("after the network failed in four ways, and service resumes", { timeout }, async () => {
    const { url } = await databaseWithDemo();
    const proxy = use(await FaultProxy.before(url));
    const sidecar = use(await serve(proxy.through(url), "--database-timeout-ms", "1000"));
    await goThrough("network", () => sidecar, [
      async () => proxy.cut(),
      async () => proxy.cutAtNextReply(),
      async () => {
        await proxy.close();
        await pause(Math.random() * 300);
        await proxy.open();
      },
      async () => {
        proxy.silence();
        await pause(Math.random() * 2_000);
        proxy.resume();
      },
    ]);
    expect(proxy.connections).toBeLessThanOrEqual(4);
  });
});
