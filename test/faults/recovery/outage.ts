import { setTimeout as pause } from "node:timers/promises";
import { expect } from "vitest";
import type { TestClient } from "../../support/client.ts";
import type { FaultProxy } from "../../support/proxy.ts";
import { type Attempted, type Load, Round } from "../round.ts";
import type { HealthWatch } from "./health-watch.ts";

/** How many rounds of each outage to go through. */
export const rounds = Number(process.env["PLUGIN_STATE_FAULT_ROUNDS"] ?? 1);
/** For a test of all of them. */
export const timeout = 60_000 + rounds * 60_000;

/**
 * How soon health follows, and service resumes: what is promised when that is what is measured, and four
 * times as much where other tests run beside it.
 */
const isPromised = process.env["PLUGIN_STATE_RECOVERY_LIMIT"] === "promised";
export const limitMs = isPromised ? 2_000 : 8_000;

const load: Load = { writers: 2, deadlineMs: 2_000, restMs: 10 };
/** How much later than its deadline a call may end: the client's own timers, on a busy machine. */
const slackMs = isPromised ? 1_500 : 4_000;
const poolSize = 3;

/** What may be said of a call that an outage was in the way of. */
const allowedErrors = [
  "UNAVAILABLE DATABASE_UNAVAILABLE",
  "UNKNOWN OUTCOME_UNKNOWN",
  "DEADLINE_EXCEEDED DEADLINE_EXCEEDED",
  // Said by the client's own library.
  "DEADLINE_EXCEEDED undefined",
];

/** What breaks, and how it comes back. */
export interface Outage {
  /** Before the load begins. */
  readonly prepare?: () => Promise<void>;
  /** Resolves when it is broken. */
  readonly begin: () => Promise<void>;
  /** What is looked at while it is broken, after health has noticed. */
  readonly meanwhile?: () => Promise<void>;
  /** Resolves when the database could be used again. */
  readonly end: () => Promise<void>;
  /** Whether health says NOT_SERVING meanwhile. Default: yes. */
  readonly isNoticed?: boolean;
  /** Whether calls may fail meanwhile. Default: yes. */
  readonly failsCalls?: boolean;
}

/** What an outage happens to. */
export interface Scene {
  readonly sidecar: { readonly client: TestClient; readonly address: string };
  readonly health: HealthWatch;
  /** The sidecar's sessions in the database. */
  readonly sessions: () => Promise<readonly unknown[]>;
  readonly proxy?: FaultProxy;
}

/** Goes through an outage under load, several times, and checks all that is promised each time. */
export async function goThrough(
  name: string,
  scene: Scene,
  outage: Outage | ((round: number) => Outage),
): Promise<void> {
  for (let n = 0; n < rounds; n++) {
    await scene.health.says("SERVING", 0);
    const outageNow = typeof outage === "function" ? outage(n) : outage;
    await outageNow.prepare?.();
    const round = new Round(`${name}-${n}`, () => scene.sidecar.client, load);
    let times: string;
    try {
      await round.begin();
      times = await happen(scene, round, outageNow);
    } finally {
      await round.end();
    }
    expectRightErrors(round.attempts, outageNow.failsCalls === false ? [] : allowedErrors);
    await expectNoLeak(scene);
    console.info(`${name}, round ${n + 1}: ${times}; ${await round.verify()}`);
  }
}

async function happen({ health }: Scene, round: Round, outage: Outage): Promise<string> {
  const { isNoticed = true, meanwhile } = outage;
  const beganAt = performance.now();
  let isOver = false;
  // Or the writers that repeat until they succeed would never end, if anything fails here.
  await using _ = { [Symbol.asyncDispose]: async () => void (isOver || (await outage.end())) };
  await outage.begin();
  const noticedMs = isNoticed ? await health.says("NOT_SERVING", beganAt) : 0;
  await meanwhile?.();
  // Calls come and fail; with those that wait for their deadline it takes longer.
  await pause(300 + Math.random() * 700);
  await outage.end();
  isOver = true;
  const endedAt = performance.now();
  const healthyMs = await health.says("SERVING", endedAt);
  await round.acknowledges(3);
  const servedMs = firstAnswer(round.attempts, endedAt) - endedAt;
  expect(noticedMs).toBeLessThan(limitMs);
  expect(healthyMs).toBeLessThan(limitMs);
  expect(servedMs).toBeLessThan(limitMs);
  if (!isNoticed) {
    expect(health.since(beganAt)).toEqual([]);
  }
  const times = { noticed: noticedMs, healthy: healthyMs, served: servedMs };
  return Object.entries(times)
    .map(([what, ms]) => `${what} after ${ms.toFixed(0)} ms`)
    .join(", ");
}

/** When the first write was acknowledged and the first read answered, whichever came later. */
function firstAnswer(attempts: readonly Attempted[], since: number): number {
  const answered = attempts.filter(
    ({ outcome, endedAt }) => outcome.kind === "ok" && endedAt >= since,
  );
  const reads = answered.filter(({ request }) => request.do === "get");
  const writes = answered.filter(({ request }) => request.do !== "get");
  const first = (some: Attempted[]) => Math.min(...some.map(({ endedAt }) => endedAt));
  return Math.max(first(reads), first(writes));
}

function expectRightErrors(attempts: readonly Attempted[], allowed: readonly string[]): void {
  const late = attempts.filter(({ tookMs }) => tookMs > load.deadlineMs + slackMs);
  expect(late).toEqual([]);
  const errors = attempts.flatMap(({ outcome }) => ("error" in outcome ? [outcome.error] : []));
  const kinds = new Set(errors.map((error) => error.slice(0, error.indexOf(":"))));
  expect([...kinds].filter((kind) => !allowed.includes(kind))).toEqual([]);
}

async function expectNoLeak({ sessions, proxy }: Scene): Promise<void> {
  const options = { timeout: 15_000, interval: 100 };
  const open = async () => (await sessions()).length;
  await expect.poll(open, options).toBeLessThanOrEqual(poolSize);
  if (proxy !== undefined) {
    await expect.poll(() => proxy.connections, options).toBeLessThanOrEqual(poolSize);
  }
}
