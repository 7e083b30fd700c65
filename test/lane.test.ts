import { expect, test } from "vitest";
import { Lane, type LaneLimits } from "../src/postgres/lane.ts";
import { Overloaded } from "../src/state/errors.ts";

const limits: LaneLimits = {
  batchCalls: 3,
  batchBytes: 100,
  batches: 1,
  waitingCalls: 10,
  waitingBytes: 1_000,
};

const never = new AbortController().signal;
const fault = new Error("one call's fault");

/** A lane whose batches wait to be released, and what they were. */
function heldLane(overrides: Partial<LaneLimits> = {}) {
  const batches: string[][] = [];
  const releases: (() => void)[] = [];
  const lane = new Lane<string, string>(
    async (calls) => {
      batches.push([...calls]);
      await new Promise<void>((resolve) => releases.push(resolve));
      if (calls.includes("bad")) {
        throw fault;
      }
      return calls.map((call) => `${call}!`);
    },
    (error) => error === fault,
    { ...limits, ...overrides },
  );
  /** Releases batches, also those that start because of it, until there are none. */
  const releaseAll = async () => {
    while (releases.length > 0) {
      releases.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { lane, batches, releaseAll };
}

test("a call that comes alone goes at once; those that come meanwhile share the next batches", async () => {
  const { lane, batches, releaseAll } = heldLane();
  const answers = ["a", "b", "c", "d", "e"].map((call) => lane.submit(call, 1, never));
  expect(batches).toEqual([["a"]]);
  await releaseAll();
  expect(await Promise.all(answers)).toEqual(["a!", "b!", "c!", "d!", "e!"]);
  expect(batches).toEqual([["a"], ["b", "c", "d"], ["e"]]);
});

test("a batch is bounded in bytes, but holds at least one call", async () => {
  const { lane, batches, releaseAll } = heldLane();
  const sizes = [1, 60, 60, 200, 10];
  const answers = sizes.map((bytes) => lane.submit(`${bytes}`, bytes, never));
  await releaseAll();
  await Promise.all(answers);
  expect(batches).toEqual([["1"], ["60"], ["60"], ["200"], ["10"]]);
});

test("a batch of one turns gathering off", async () => {
  const { lane, batches, releaseAll } = heldLane({ batchCalls: 1, batches: 2 });
  const answers = ["a", "b", "c"].map((call) => lane.submit(call, 1, never));
  expect(batches).toEqual([["a"], ["b"]]);
  await releaseAll();
  await Promise.all(answers);
  expect(batches).toEqual([["a"], ["b"], ["c"]]);
});

test("one call's fault fails that call alone, and the others of its batch are answered", async () => {
  const { lane, releaseAll } = heldLane();
  const answers = ["first", "a", "bad", "b"].map((call) => lane.submit(call, 1, never));
  const settled = Promise.allSettled(answers);
  await releaseAll();
  expect(await settled).toEqual([
    { status: "fulfilled", value: "first!" },
    { status: "fulfilled", value: "a!" },
    { status: "rejected", reason: fault },
    { status: "fulfilled", value: "b!" },
  ]);
});

test("a call that nobody waits for any more is dropped before its batch is sent", async () => {
  const { lane, batches, releaseAll } = heldLane();
  const caller = new AbortController();
  const first = lane.submit("first", 1, never);
  const dropped = lane.submit("dropped", 1, caller.signal);
  const kept = lane.submit("kept", 1, never);
  caller.abort(new Error("gone"));
  const rejection = expect(dropped).rejects.toThrow("gone");
  await releaseAll();
  await rejection;
  expect(await Promise.all([first, kept])).toEqual(["first!", "kept!"]);
  expect(batches).toEqual([["first"], ["kept"]]);
});

test.for([
  ["calls", { waitingCalls: 2 }, 1],
  ["bytes", { waitingBytes: 20 }, 10],
] as const)("more waiting %s than its bound are refused at once", async ([, bound, bytes]) => {
  const { lane, releaseAll } = heldLane(bound);
  const accepted = ["first", "a", "b"].map((call) => lane.submit(call, bytes, never));
  await expect(lane.submit("c", bytes, never)).rejects.toBeInstanceOf(Overloaded);
  await releaseAll();
  expect(await Promise.all(accepted)).toEqual(["first!", "a!", "b!"]);
  expect(lane.waitingCalls).toBe(0);
});

test("when a batch fails as a whole, each of its calls is told, and the next batch goes on", async () => {
  let runs = 0;
  const lane = new Lane<string, string>(
    async (calls) => {
      runs += 1;
      if (runs === 1) {
        throw new Error("connection lost");
      }
      return [...calls];
    },
    () => false,
    limits,
  );
  await expect(lane.submit("a", 1, never)).rejects.toThrow("connection lost");
  expect(await lane.submit("b", 1, never)).toBe("b");
});
