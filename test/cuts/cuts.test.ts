import { randomInt } from "node:crypto";
import { afterAll, beforeAll, test } from "vitest";
import { Random } from "../fuzz/random.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { fill } from "./calls.ts";
import { crowdSize } from "./crowd.ts";
import {
  cutOff,
  cuts,
  drainTimeoutMs,
  endIt,
  ends,
  maxCallMs,
  maxConnections,
  tooOld,
} from "./cuts.ts";
import { Victim } from "./victim.ts";

const rounds = Number(process.env["PLUGIN_STATE_CUT_ROUNDS"] ?? 1);
/** As many rounds as there is time for, if that is given. */
const seconds = Number(process.env["PLUGIN_STATE_CUT_SECONDS"] ?? 0);
const timeout = 120_000 + rounds * 120_000 + seconds * 1_000;

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  await fill(database);
});

afterAll(() => database[Symbol.asyncDispose]());

test("clients that don't read, read slowly, vanish or are frozen, and are cut off in any way, do no harm to others", {
  timeout,
}, async () => {
  const seed = Number(process.env["PLUGIN_STATE_CUT_SEED"] ?? randomInt(2 ** 31));
  console.info(`PLUGIN_STATE_CUT_SEED=${seed}, Node.js ${process.version}`);
  const random = new Random(seed);
  const started = performance.now();
  const isOver = (round: number) =>
    seconds > 0 ? performance.now() - started > seconds * 1_000 : round >= rounds;
  let count = 0;
  for (let round = 0; round === 0 || !isOver(round); round++) {
    count += await everyCut(random);
  }
  console.info(`${count} cuts of ${crowdSize} connections each`);
});

/** All of them, in any order, in two processes, each of which ends in one of the ways. */
async function everyCut(random: Random): Promise<number> {
  const [firstEnd, secondEnd] = shuffled(random, ["drain", "second signal"] as const);
  const drain = ["--drain-timeout-ms", String(drainTimeoutMs)];
  {
    const limit = ["--max-connections", String(maxConnections)];
    await using victim = await Victim.start(database, ...drain, ...limit);
    for (const cut of shuffled(random, Object.values(cuts))) await cutOff(victim, random, cut);
    await endIt(victim, random, firstEnd!);
  }
  await using victim = await Victim.start(database, ...drain, "--max-call-ms", String(maxCallMs));
  await cutOff(victim, random, tooOld);
  await endIt(victim, random, secondEnd!);
  return Object.keys(cuts).length + 1 + Object.keys(ends).length;
}

function shuffled<T>(random: Random, values: readonly T[]): T[] {
  const left = [...values];
  return values.map(() => left.splice(random.below(left.length), 1)[0]!);
}
