import { afterAll, beforeAll, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { type TestSidecar, testSidecar } from "../support/sidecar.ts";
import { checkHistory } from "./check.ts";
import type { Recorded } from "./operation.ts";
import { anySeed, recordHistory, summaryOf } from "./run.ts";
import { describeViolation } from "./violation.ts";

const calls = Number(process.env["PLUGIN_STATE_HISTORY_CALLS"] ?? 3_000);
const timeout = 60_000 + calls * 20;

let database: TestDatabase;
let sidecars: TestSidecar[];
let reader: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  sidecars = [
    await testSidecar(database),
    await testSidecar(database),
    await testSidecar(database),
  ];
  reader = await testSidecar(database);
});

afterAll(async () => {
  await Promise.all([...sidecars, reader].map((sidecar) => sidecar[Symbol.asyncDispose]()));
  await database[Symbol.asyncDispose]();
});

test("what three sidecars and three external writers do to a few entries at once, and a fourth one reads, is strictly serialisable", {
  timeout,
}, async () => {
  const seed = anySeed();
  console.info(`history of ${calls} calls, PLUGIN_STATE_HISTORY_SEED=${seed}`);
  const history = await recordHistory({
    database,
    sidecars,
    reader,
    externalWriters: 3,
    calls,
    seed,
  });
  console.info(summaryOf(history.operations));

  const started = performance.now();
  const violations = checkHistory(history);
  console.info(`checked in ${Math.round(performance.now() - started)} ms`);
  expect(violations.slice(0, 5).map(describeViolation)).toEqual([]);
  expect(history.operations.filter(isUnclear)).toEqual([]);
});

/** Without faults every call is answered. */
function isUnclear({ outcome }: Recorded): boolean {
  return outcome.kind === "unknown" || outcome.kind === "notDone";
}
