import { describe, expect, test } from "vitest";
import { checkHistory } from "./check.ts";
import type {
  Entry,
  History,
  Json,
  Name,
  Outcome,
  Recorded,
  Refusal,
  Reply,
  Request,
} from "./operation.ts";
import { describeViolation } from "./violation.ts";

const a: Name = { place: "instance", key: "a" };
const b: Name = { place: "issue", key: "b" };

/** An operation from one tick of the clock to another. */
type Call = readonly [from: number, to: number, request: Request, outcome: Outcome];

const ok = (reply: Reply): Outcome => ({ kind: "ok", reply });
const refused = (refusal: Refusal): Outcome => ({ kind: "refused", refusal });
const lost: Outcome = { kind: "unknown", error: "UNKNOWN" };
const entry = (name: Name, revision: bigint, value: Json): Entry => ({ ...name, revision, value });

function set(from: number, to: number, name: Name, value: Json, revision: bigint): Call {
  return [
    from,
    to,
    { do: "set", name, value },
    ok({ do: "set", revision, created: revision === 1n }),
  ];
}

/** An increment by one, of an entry that was there unless the value is 1. */
function increment(from: number, to: number, name: Name, value: number, revision: bigint): Call {
  const request: Request = { do: "update", name, change: { kind: "increment", by: 1 } };
  const created = value === 1;
  return [from, to, request, ok({ do: "update", revision, value, created, changed: true })];
}

function get(from: number, to: number, name: Name, revision: bigint, found?: Entry): Call {
  return [from, to, { do: "get", name }, ok({ do: "get", revision, entry: found })];
}

function batch(
  from: number,
  to: number,
  revision: bigint,
  ...entries: (Entry | undefined)[]
): Call {
  return [from, to, { do: "batchGet", names: [a, b] }, ok({ do: "batchGet", revision, entries })];
}

function foreign(from: number, to: number, name: Name, value: Json): Call {
  return [from, to, { do: "foreignUpsert", name, value }, ok({ do: "foreignUpsert" })];
}

function foreignDelete(from: number, to: number, name: Name): Call {
  return [from, to, { do: "foreignDelete", name }, ok({ do: "foreignDelete", existed: true })];
}

function history(finalRevision: bigint, ...calls: readonly Call[]): History {
  const operations = calls.map(
    ([invokedAt, completedAt, request, outcome], id): Recorded => ({
      id,
      client: `client-${id}`,
      invokedAt,
      completedAt,
      request,
      outcome,
    }),
  );
  return { operations, initialRevision: 0n, finalRevision };
}

/** The rules that a history breaks, each with the numbers of the calls that show it. */
function broken(finalRevision: bigint, ...calls: readonly Call[]): string[] {
  return checkHistory(history(finalRevision, ...calls)).map(
    ({ rule, operations }) => `${rule}: ${operations.map(({ id }) => id).join(" ")}`,
  );
}

describe("what is right passes:", () => {
  test("calls one after the other", () => {
    expect(
      broken(
        2n,
        get(0, 1, a, 0n),
        set(2, 3, a, "x", 1n),
        get(4, 5, a, 1n, entry(a, 1n, "x")),
        [6, 7, { do: "delete", name: a }, ok({ do: "delete", revision: 2n, existed: true })],
        [8, 9, { do: "delete", name: a }, ok({ do: "delete", revision: 2n, existed: false })],
      ),
    ).toEqual([]);
  });

  test("calls that overlap, in whatever order they took effect", () => {
    expect(
      broken(
        2n,
        increment(0, 9, a, 2, 2n),
        increment(0, 9, a, 1, 1n),
        get(1, 8, a, 0n),
        get(1, 8, a, 2n, entry(a, 2n, 2)),
        get(1, 8, a, 1n, entry(a, 1n, 1)),
      ),
    ).toEqual([]);
  });

  test("a refusal that was right at some moment of the call", () => {
    const ifAbsent: Request = { do: "set", name: a, value: "y", condition: { kind: "absent" } };
    const exists = refused({ reason: "ENTRY_EXISTS", current: 1n });
    const deleted = ok({ do: "delete", revision: 2n, existed: true });
    expect(
      broken(
        2n,
        set(0, 3, a, "x", 1n),
        [1, 9, ifAbsent, exists],
        [4, 8, { do: "delete", name: a }, deleted],
      ),
    ).toEqual([]);
  });

  test("foreign writes that only a revision without an owner tells of", () => {
    expect(
      broken(
        4n,
        set(0, 1, a, "x", 1n),
        foreign(2, 3, a, "host"),
        get(4, 5, a, 2n, entry(a, 2n, "host")),
        foreignDelete(6, 9, a),
        foreign(6, 9, b, "host too"),
        batch(10, 11, 4n, undefined, entry(b, 3n, "host too")),
      ),
    ).toEqual([]);
  });

  test("a write of unknown outcome, whether it was done, wasn't, or was done later", () => {
    const [lostSet]: Request[] = [{ do: "set", name: a, value: "lost" }];
    const read = get(8, 9, a, 1n, entry(a, 1n, "x"));
    expect(broken(1n, [0, 1, lostSet!, lost], set(2, 3, a, "x", 1n), read)).toEqual([]);
    expect(broken(2n, [0, 1, lostSet!, lost], set(2, 3, a, "x", 1n), read)).toEqual([]);
    const found = entry(a, 2n, "lost");
    expect(
      broken(2n, [0, 1, lostSet!, lost], set(2, 3, a, "x", 1n), read, get(10, 11, a, 2n, found)),
    ).toEqual([]);
  });

  test("a write that was repeated under its request id, and answered the same long after", () => {
    const [from, to, request, outcome] = increment(0, 1, a, 1, 1n);
    const withId = { ...request, requestId: "id" } as Request;
    expect(
      broken(2n, [from, to, withId, outcome], increment(2, 3, a, 2, 2n), [4, 5, withId, outcome]),
    ).toEqual([]);
  });
});

describe("what is wrong is named:", () => {
  test("a stale read, of a snapshot that is over", () => {
    expect(broken(1n, set(0, 1, a, "x", 1n), get(2, 3, a, 0n))).toEqual(["real time: 0 1"]);
  });

  test("a stale read, of an entry that was written since", () => {
    const old = entry(a, 1n, "x");
    expect(broken(2n, set(0, 1, a, "x", 1n), set(2, 3, a, "y", 2n), get(4, 5, a, 2n, old))).toEqual(
      ["read: 2 1"],
    );
  });

  test("a lost update", () => {
    expect(
      broken(3n, increment(0, 1, a, 1, 1n), increment(2, 9, a, 2, 2n), increment(2, 9, a, 2, 3n)),
    ).toEqual(["write: 2 1"]);
  });

  test("one increment applied twice", () => {
    expect(broken(2n, increment(0, 1, a, 1, 1n), get(2, 3, a, 2n, entry(a, 2n, 2)))).toEqual([
      "no hole: ",
    ]);
  });

  test("a reply with the wrong revision", () => {
    const wrong = get(4, 5, a, 2n, entry(a, 1n, "y"));
    expect(broken(2n, set(0, 9, a, "x", 1n), set(0, 9, a, "y", 3n), wrong)).toContain(
      "own revision: 1",
    );
  });

  test("two writes with one revision", () => {
    expect(broken(2n, set(0, 1, a, "x", 1n), set(0, 1, b, "y", 1n))).toContain("own revision: 0 1");
  });

  test("writes whose revisions go against the clock", () => {
    const [, , request] = set(0, 0, b, "y", 1n);
    const first: Call = [2, 3, request, ok({ do: "set", revision: 1n, created: true })];
    const second: Call = [
      0,
      1,
      { do: "set", name: a, value: "x" },
      ok({ do: "set", revision: 2n, created: true }),
    ];
    expect(broken(2n, second, first)).toEqual(["real time: 0 1"]);
  });

  test("a hole", () => {
    const second = increment(2, 3, a, 1, 3n);
    expect(broken(3n, set(0, 1, b, "x", 1n), second)).toEqual(["no hole: "]);
  });

  test("a hole more than foreign writes and unknown outcomes can fill", () => {
    expect(broken(2n, foreign(0, 1, a, "host"))).toEqual(["no hole: 0"]);
  });

  test("a hole at a time when no foreign writer was at work", () => {
    expect(broken(2n, set(0, 1, a, "x", 1n), get(2, 3, b, 2n), foreign(4, 5, b, "host"))).toEqual([
      "no hole: 2",
      "no hole: 2",
    ]);
  });

  test("a foreign write without a revision", () => {
    expect(broken(1n, set(0, 1, a, "x", 1n), foreign(2, 3, b, "host"))).toEqual(["no hole: 1"]);
  });

  test("an entry that nobody wrote", () => {
    const found = entry(a, 1n, "host's");
    expect(broken(1n, foreign(0, 9, a, "host"), get(10, 11, a, 1n, found))).toEqual(["read: 1"]);
  });

  test("a read from the future", () => {
    const early = get(0, 1, a, 1n, entry(a, 1n, "x"));
    expect(broken(1n, early, set(2, 3, a, "x", 1n))).toEqual(["real time: 0 1"]);
  });

  test("a batch read that isn't one snapshot", () => {
    const torn = batch(0, 9, 2n, undefined, entry(b, 2n, "y"));
    const writes = [set(0, 9, a, "x", 1n), transactOf(0, 9, 1n, b)];
    expect(broken(2n, ...writes, torn)).toEqual(["read: 2 0 1"]);
  });

  test("a condition refused that held all the time", () => {
    const absent: Request = { do: "set", name: b, value: "y", condition: { kind: "absent" } };
    const exists = refused({ reason: "ENTRY_EXISTS", current: 1n });
    expect(broken(1n, set(0, 1, a, "x", 1n), [2, 3, absent, exists])).toEqual(["refusal: 1"]);
  });

  test("a condition refused that hadn't held before the call, but did in it", () => {
    const present: Request = { do: "delete", name: a, condition: { kind: "present" } };
    const absent = refused({ reason: "ENTRY_ABSENT" });
    expect(broken(1n, set(0, 1, a, "x", 1n), [2, 3, present, absent])).toEqual(["refusal: 1"]);
  });

  test("a condition that wasn't met and was passed over", () => {
    const condition = { kind: "revision", revision: 7n } as const;
    const request: Request = { do: "set", name: a, value: "y", condition };
    const done = ok({ do: "set", revision: 2n, created: false });
    expect(broken(2n, set(0, 1, a, "x", 1n), [2, 3, request, done])).toEqual(["write: 1 0"]);
  });

  test("a Transact half applied", () => {
    const half = batch(2, 3, 2n, entry(a, 1n, "y"), undefined);
    expect(broken(2n, transactOf(0, 1, 0n, a, b), half)).toEqual(["read: 1 0"]);
  });

  test("a read in the midst of a Transact", () => {
    const early = batch(0, 9, 1n, entry(a, 1n, "y"), undefined);
    expect(broken(2n, transactOf(0, 9, 0n, a, b), early)).toEqual(["read: 1 0"]);
  });

  test("a write done twice under one request id", () => {
    const attempts = [increment(0, 1, a, 1, 1n), increment(2, 3, a, 2, 2n)].map(
      ([from, to, request, outcome]): Call => [
        from,
        to,
        { ...request, requestId: "id" } as Request,
        outcome,
      ],
    );
    expect(broken(2n, ...attempts)).toContain("once only: 0 1");
  });

  test("the report tells rule, reason and calls", () => {
    const [violation] = checkHistory(history(1n, set(0, 1, a, "x", 1n), get(2, 3, a, 0n)));
    const text = describeViolation(violation!);
    expect(text).toMatch(/^real time: an operation saw revision 0 though 1 was acknowledged/);
    expect(text).toMatch(/#0 client-0 \[0, 1\] \{"do":"set"/);
    expect(text).toMatch(/#1 client-1 \[2, 3\] \{"do":"get"/);
  });
});

/** A Transact that sets each name, new to the plugin, to `y`. */
function transactOf(from: number, to: number, base: bigint, ...names: readonly Name[]): Call {
  const operations = names.map((name) => ({ do: "set" as const, name, value: "y" }));
  const results = names.map((_, n) => ({
    do: "set" as const,
    revision: base + BigInt(n + 1),
    created: true,
  }));
  const revision = base + BigInt(names.length);
  const request: Request = { do: "transact", checks: [], operations };
  return [from, to, request, ok({ do: "transact", revision, results })];
}
