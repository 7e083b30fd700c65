import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { fill, replies } from "./calls.ts";
import { BadClient, type Calls, type Script } from "./clients.ts";
import { Victim } from "./victim.ts";

const mib = 1024 * 1024;
const rounds = Number(process.env["PLUGIN_STATE_CUT_ROUNDS"] ?? 1);
const timeout = 60_000 + rounds * 30_000;

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  await fill(database);
});

afterAll(() => database[Symbol.asyncDispose]());

/** One connection in the clear, whose client does what is said and is frozen otherwise. */
function scriptOf(
  victim: Victim,
  calls: Omit<Calls, "headers">,
  change: Partial<Script> = {},
): Script {
  const headers = { authorization: victim.authorization };
  const address = victim.addressOf("plain");
  return {
    behaviour: "frozen",
    window: 10 * mib,
    blockedMs: 0,
    connections: [{ address, isSecure: false, calls: [{ ...calls, headers }] }],
    ...change,
  };
}

test("200 pages that a client with large windows doesn't read for 8 s, and then does, do no harm", {
  timeout,
}, async () => {
  for (let round = 0; round < rounds; round++) {
    await using victim = await Victim.start(database);
    const change = { behaviour: "blocked", window: 2 ** 30, blockedMs: 8_000 } as const;
    await using _client = await BadClient.start(scriptOf(victim, replies.page(200), change));
    await sleep(10_000);
    await victim.isWell();
  }
});

test("a reply that a frozen client doesn't read does no harm when its binding is removed", {
  timeout,
}, async () => {
  for (let round = 0; round < rounds; round++) {
    await using victim = await Victim.start(database, "--drain-timeout-ms", "500");
    await using client = await BadClient.start(scriptOf(victim, replies["4 MiB"](1)));
    await sleep(500);
    await victim.removeBindings();
    await sleep(1_500);
    await victim.isWell();
    client.thaw();
    await sleep(100);
    await victim.isWell();
  }
});

test("a reply that a frozen client doesn't read does no harm when the time for a drain is over", {
  timeout,
}, async () => {
  for (let round = 0; round < rounds; round++) {
    await using victim = await Victim.start(database, "--drain-timeout-ms", "500");
    await using _client = await BadClient.start(scriptOf(victim, replies["4 MiB"](1)));
    await sleep(500);
    victim.signal("SIGTERM");
    expect(await victim.ended()).toEqual({ code: 0, signal: null });
  }
});
