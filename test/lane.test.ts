import { expect, test } from "vitest";
import { Lane, type LaneLimits, type LaneWork, type Remedy } from "../src/postgres/lane.ts";
import { Overloaded } from "../src/state/errors.ts";

const limits: LaneLimits = {
  batchWeight: 3,
  batchBytes: 100,
  batches: 1,
  waitingCalls: 10,
  waitingBytes: 1_000,
};

const never = new AbortController().signal;
const fault = new Error("one call's fault");

/** A call: its name, and what it costs if that isn't 1. */
type TestCall =
  | string
  | { readonly name: string; readonly weight?: number; readonly bytes?: number };

const nameOf = (call: TestCall) => (typeof call === "string" ? call : call.name);
const ended = () => new Promise((resolve) => setImmediate(resolve));

/** A lane that answers each call with its name and `!`, unless told otherwise, and what its batches were. */
function testLane(work: Partial<LaneWork<TestCall, string>>, overrides: Partial<LaneLimits> = {}) {
  const batches: string[][] = [];
  const { run, remedy = () => "fail" } = work;
  const lane = new Lane<TestCall, string>(
    {
      run: async (calls, makeRoom) => {
        batches.push(calls.map(nameOf));
        return run === undefined
          ? calls.map((call) => `${nameOf(call)}!`)
          : await run(calls, makeRoom);
      },
      cost: (call) => ({ weight: 1, bytes: 1, ...(typeof call === "string" ? {} : call) }),
      remedy,
    },
    { ...limits, ...overrides },
  );
  /** Submits a call and, when its batch is under way, the others together. */
  const submit = async (first: TestCall, ...others: TestCall[]) => {
    const answer = lane.submit(first, never);
    await ended();
    return [answer, ...others.map((call) => lane.submit(call, never))];
  };
  return { lane, batches, submit };
}

/** A lane whose batches wait to be released; one with the call `bad` in it fails. */
function heldLane(overrides: Partial<LaneLimits> = {}) {
  const releases: (() => void)[] = [];
  const run = async (calls: readonly TestCall[]) => {
    await new Promise<void>((resolve) => releases.push(resolve));
    if (calls.includes("bad")) {
      throw fault;
    }
    return calls.map((call) => `${nameOf(call)}!`);
  };
  /** Releases batches, also those that start because of it, until there are none. */
  const releaseAll = async () => {
    while (releases.length > 0) {
      releases.shift()?.();
      await ended();
    }
  };
  return { ...testLane({ run, remedy: () => "one_by_one" }, overrides), releaseAll };
}

test("a call that comes alone goes at once, and those that come meanwhile share the next batches", async () => {
  const { submit, batches, releaseAll } = heldLane();
  const answers = await submit("a", "b", "c", "d", "e");
  await ended();
  expect(batches).toEqual([["a"]]);
  await releaseAll();
  expect(await Promise.all(answers)).toEqual(["a!", "b!", "c!", "d!", "e!"]);
  expect(batches).toEqual([["a"], ["b", "c", "d"], ["e"]]);
});

test.for<[string, "bytes" | "weight", readonly number[], string[][]]>([
  ["bytes", "bytes", [1, 60, 40, 60, 200, 10], [["1"], ["60", "40"], ["60"], ["200"], ["10"]]],
  ["weight", "weight", [1, 2, 1, 2, 2, 9, 1], [["1"], ["2", "1"], ["2"], ["2"], ["9"], ["1"]]],
])("a batch is bounded in %s, but holds at least one call", async ([, bound, costs, expected]) => {
  const { submit, batches, releaseAll } = heldLane();
  const [first = 0, ...others] = costs;
  const call = (cost: number) => ({ name: `${cost}`, [bound]: cost });
  const answers = await submit(call(first), ...others.map(call));
  await releaseAll();
  await Promise.all(answers);
  expect(batches).toEqual(expected);
});

test.for([
  ["with one batch at a time", 1, [20, 20, 20, 20]],
  ["with two", 2, [20, 20, 20, 20]],
] as const)(
  "of many calls a batch takes half, so that the others aren't all waited for: %s",
  async ([, atOnce, sizes]) => {
    const many = { batchWeight: 100, waitingCalls: 100, batches: atOnce };
    const run = async (calls: readonly TestCall[]) => {
      await ended();
      return calls.map((call) => `${nameOf(call)}!`);
    };
    const { lane, batches } = testLane({ run }, many);
    const call = (n: number) => lane.submit(`call ${n}`, never);
    // Each client calls twice, the second time when it has its answer.
    const clients = Array.from({ length: 40 }, async (_, n) => {
      await call(n);
      await call(n);
    });
    await Promise.all(clients);
    expect(batches.map((batch) => batch.length)).toEqual(sizes);
  },
);

test("few calls all go together", async () => {
  const { lane, batches } = testLane({}, { batchWeight: 100 });
  await Promise.all(Array.from({ length: 8 }, (_, n) => lane.submit(`call ${n}`, never)));
  expect(batches.map((batch) => batch.length)).toEqual([8]);
});

test("a batch of weight one turns gathering off", async () => {
  const { submit, batches, releaseAll } = heldLane({ batchWeight: 1, batches: 2 });
  const answers = await submit("a", "b", "c");
  await ended();
  expect(batches).toEqual([["a"], ["b"]]);
  await releaseAll();
  await Promise.all(answers);
  expect(batches).toEqual([["a"], ["b"], ["c"]]);
});

test("one call's fault fails that call alone, and the others of its batch are answered", async () => {
  const { submit, releaseAll } = heldLane();
  const settled = Promise.allSettled(await submit("first", "a", "bad", "b"));
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
  const first = lane.submit("first", never);
  await ended();
  const dropped = lane.submit("dropped", caller.signal);
  const kept = lane.submit("kept", never);
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
  const { lane, submit, releaseAll } = heldLane(bound);
  const named = (name: string) => ({ name, bytes });
  const accepted = await submit(named("first"), named("a"), named("b"));
  await expect(lane.submit(named("c"), never)).rejects.toBeInstanceOf(Overloaded);
  await releaseAll();
  expect(await Promise.all(accepted)).toEqual(["first!", "a!", "b!"]);
  expect(lane.waitingCalls).toBe(0);
});

test("what waited and was answered makes room again, whatever became of it", async () => {
  let failures = 2;
  const { submit } = testLane(
    {
      run: async (calls) => {
        if (calls.some((call) => nameOf(call) === "lost") && failures-- > 0) {
          throw new Error("connection lost");
        }
        return calls.map((call) => `${nameOf(call)}!`);
      },
      remedy: () => "again",
    },
    { waitingBytes: 20 },
  );
  for (let n = 0; n < 10; n++) {
    failures = 2;
    const answers = await submit({ name: "lost", bytes: 10 }, { name: "other", bytes: 10 });
    expect(await Promise.all(answers)).toEqual(["lost!", "other!"]);
  }
});

test("a call without an answer goes into a later batch", async () => {
  const { submit, batches } = testLane({
    run: async (calls) => calls.map((call, at) => (at < 2 ? `${nameOf(call)}!` : undefined)),
  });
  const answers = await submit("first", "a", "b", "c", "d");
  expect(await Promise.all(answers)).toEqual(["first!", "a!", "b!", "c!", "d!"]);
  expect(batches.slice(0, 2)).toEqual([["first"], ["a", "b", "c"]]);
  expect(batches.slice(2).flat().sort()).toEqual(["c", "d"]);
});

/** A lane with a call named `bad` that fails as often as said, and the others of its batch with it. */
function failingLane(remedy: Remedy, times: number) {
  let left = times;
  return testLane({
    remedy: () => remedy,
    run: async (calls) => {
      await ended();
      if (calls.includes("bad") && left > 0) {
        left -= 1;
        throw fault;
      }
      return calls.map((call) => `${nameOf(call)}!`);
    },
  });
}

test("a batch that failed is failed, and the next one goes on", async () => {
  const { submit, batches } = failingLane("fail", 1);
  const settled = await Promise.allSettled(await submit("first", "a", "bad", "b", "next"));
  expect(settled.map(({ status }) => status)).toEqual([
    "fulfilled",
    "rejected",
    "rejected",
    "rejected",
    "fulfilled",
  ]);
  expect(batches).toEqual([["first"], ["a", "bad", "b"], ["next"]]);
});

test("a call that meets a conflict goes alone later, and holds up neither its batch nor later calls", async () => {
  const { submit, batches } = failingLane("conflict", 5);
  const order: string[] = [];
  const answers = await submit("first", "a", "bad", "b", "c");
  await Promise.all(answers.map((answer) => answer.then((text) => order.push(text))));
  expect(order.slice(0, -1).sort()).toEqual(["a!", "b!", "c!", "first!"]);
  expect(order.at(-1)).toBe("bad!");
  expect(batches.filter((batch) => batch.includes("bad"))).toEqual([
    ["a", "bad", "b"],
    ...Array.from({ length: 5 }, () => ["bad"]),
  ]);
});

test("a batch that makes room lets the next one start before it has ended", async () => {
  let finish = (): void => undefined;
  const run = async (calls: readonly TestCall[], makeRoom: () => void) => {
    if (calls.includes("doubtful")) {
      makeRoom();
      makeRoom();
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    }
    return calls.map((call) => `${nameOf(call)}!`);
  };
  const { submit } = testLane({ run });
  const [doubtful, other] = await submit("doubtful", "other");
  expect(await other).toBe("other!");
  finish();
  expect(await doubtful).toBe("doubtful!");
});

test("a conflict that doesn't end fails its call in the end, and no other", async () => {
  const { submit, batches } = failingLane("conflict", Number.POSITIVE_INFINITY);
  const settled = await Promise.allSettled(await submit("first", "a", "bad", "b"));
  expect(settled.map(({ status }) => status)).toEqual([
    "fulfilled",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  // In the batch, and then alone: at once, and 20 times more.
  expect(batches.filter((batch) => batch.includes("bad"))).toHaveLength(22);
});

test("a batch that was lost is sent again, whole and in order", async () => {
  const { submit, batches } = failingLane("again", 1);
  const answers = await Promise.all(await submit("first", "a", "bad", "b"));
  expect(answers).toEqual(["first!", "a!", "bad!", "b!"]);
  expect(batches).toEqual([["first"], ["a", "bad", "b"], ["a", "bad", "b"]]);
});

test("a call that loses its batch each time is sent again 3 times, the last two alone, and takes no other with it", async () => {
  const { submit, batches } = failingLane("again", Number.POSITIVE_INFINITY);
  const settled = await Promise.allSettled(await submit("first", "a", "bad", "b"));
  expect(settled.map(({ status }) => status)).toEqual([
    "fulfilled",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  expect(batches.filter((batch) => batch.includes("bad"))).toEqual([
    ["a", "bad", "b"],
    ["a", "bad", "b"],
    ["bad"],
    ["bad"],
  ]);
});

test("a call that is to be sent again, and that nobody waits for any more, isn't", async () => {
  const { lane, batches } = failingLane("again", 1);
  const caller = new AbortController();
  const bad = lane.submit("bad", caller.signal);
  await ended();
  caller.abort(new Error("gone"));
  await expect(bad).rejects.toThrow("gone");
  expect(batches).toEqual([["bad"]]);
});
