import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkHistory } from "../history/check.ts";
import { anySeed, recordHistory, summaryOf } from "../history/run.ts";
import { describeViolation } from "../history/violation.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { FaultProxy } from "../support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "../support/sidecar.ts";
import { rounds } from "./round.ts";

const calls = 500 * rounds;
const timeout = 60_000 + calls * 20;

let database: TestDatabase;
let proxies: FaultProxy[];
let sidecars: TestSidecar[];

beforeAll(async () => {
  database = await testDatabase();
  proxies = [await FaultProxy.before(database.url), await FaultProxy.before(database.url)];
  sidecars = [];
  for (const proxy of proxies) {
    const { database: throughProxy } = configFor(proxy.through(database.url), []);
    sidecars.push(await testSidecar(database, ["demo"], { database: throughProxy }));
  }
});

afterAll(async () => {
  await Promise.all(sidecars.map((sidecar) => sidecar[Symbol.asyncDispose]()));
  await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
  await database[Symbol.asyncDispose]();
});

test("while connections to the database break all the time, what is done and answered stays strictly serialisable", {
  timeout,
}, async () => {
  const seed = anySeed();
  console.info(`history of ${calls} calls, PLUGIN_STATE_HISTORY_SEED=${seed}`);
  const isOver = new AbortController();
  const saboteurs = proxies.map((proxy) => breakConnections(proxy, isOver.signal));
  const history = await recordHistory({ database, sidecars, calls, seed }).finally(() =>
    isOver.abort(),
  );
  await Promise.all(saboteurs);
  console.info(summaryOf(history.operations));
  expect(checkHistory(history).slice(0, 5).map(describeViolation)).toEqual([]);
});

/** Before or after the database has done what it was asked. */
async function breakConnections(proxy: FaultProxy, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await pause(20 + Math.random() * 200);
    Math.random() < 0.3 ? proxy.cut() : proxy.cutAtNextReply();
  }
}
