import { isDeepStrictEqual } from "node:util";
import type { Entry, ForeignWrite, History, Name, Recorded, Reply, Write } from "./operation.ts";
import { asText, entriesIn } from "./operation.ts";
import type { Order } from "./order.ts";
import type { Violation } from "./violation.ts";

/** A write that may have taken a revision of which no reply tells whose it is. */
export interface Filler {
  readonly act: Recorded;
  readonly write: Write | ForeignWrite;
  /** The revisions it may have, both inclusive. */
  readonly from: bigint;
  readonly to: bigint;
  /** Whether it has one for sure. */
  readonly isSure: boolean;
}

export interface Holes {
  /** The writes that may have taken a revision which no reply tells of. */
  readonly candidates: ReadonlyMap<bigint, readonly Filler[]>;
  readonly violations: readonly Violation[];
}

/**
 * Finds out who may have taken the revisions that no reply tells of: foreign writes, which don't
 * learn theirs, and writes of unknown outcome. Whoever saw such a revision's entry narrows it down.
 */
export function fillHoles(acts: readonly Recorded[], order: Order, history: History): Holes {
  const holes = holesOf(order, history);
  const fillers = acts.flatMap((act) => fillersOf(act, order, history));
  const violations = [
    ...matchable(holes, fillers).uncovered.map((hole) => nobodys(hole, fillers)),
    ...matchable(
      holes,
      fillers.filter(({ isSure }) => isSure),
    ).unplaced.map(placeless),
  ];
  if (violations.length > 0) {
    return { candidates: new Map(), violations };
  }
  const candidates = candidatesOf(holes, fillers, observed(acts));
  const propagated = propagate(candidates, fillers);
  return { candidates, violations: propagated };
}

function holesOf({ taken }: Order, { initialRevision, finalRevision }: History): bigint[] {
  const holes: bigint[] = [];
  for (let revision = initialRevision + 1n; revision <= finalRevision; revision++) {
    if (!taken.has(revision)) {
      holes.push(revision);
    }
  }
  return holes;
}

function fillersOf(act: Recorded, { windows }: Order, { finalRevision }: History): Filler[] {
  const { request, outcome } = act;
  const { floor, ceiling } = windows.get(act)!;
  const filler = (write: Write | ForeignWrite) => {
    const isSure = outcome.kind === "ok";
    return { act, write, isSure, from: floor + 1n, to: isSure ? ceiling : finalRevision };
  };
  if (request.do === "foreignUpsert" || request.do === "foreignDelete") {
    const didNothing = outcome.kind === "ok" && isIdle(outcome.reply);
    return didNothing ? [] : [filler(request)];
  }
  if (outcome.kind !== "unknown" || isRead(request.do)) {
    return [];
  }
  // Of a Transact each operation by itself, which allows more than all or nothing.
  return request.do === "transact" ? request.operations.map(filler) : [filler(request as Write)];
}

function isIdle(reply: Reply): boolean {
  return reply.do === "foreignDelete" && !reply.existed;
}

function isRead(kind: string): boolean {
  return kind === "get" || kind === "batchGet" || kind === "list";
}

/**
 * Gives each hole, from the first to the last, the filler that must have its revision soonest: the
 * most that any choice fills. That holes can be filled and that sure fillers have a place may be
 * asked one by one: if both can be, they can be together (Mendelsohn and Dulmage).
 */
function matchable(holes: readonly bigint[], fillers: readonly Filler[]) {
  const coming = [...fillers].sort((a, b) => Number(a.from - b.from));
  const uncovered: bigint[] = [];
  const unplaced: Filler[] = [];
  let open: Filler[] = [];
  let next = 0;
  for (const hole of holes) {
    for (; next < coming.length && coming[next]!.from <= hole; next++) {
      open.push(coming[next]!);
    }
    unplaced.push(...open.filter(({ to }) => to < hole));
    open = open.filter(({ to }) => to >= hole);
    const chosen = open.reduce<Filler | undefined>(
      (soonest, filler) => (soonest === undefined || filler.to < soonest.to ? filler : soonest),
      undefined,
    );
    if (chosen === undefined) {
      uncovered.push(hole);
    }
    open = open.filter((filler) => filler !== chosen);
  }
  return { uncovered, unplaced: [...unplaced, ...open, ...coming.slice(next)] };
}

/** What replies show under each revision. */
function observed(acts: readonly Recorded[]): Map<bigint, Entry> {
  const entries = acts.flatMap(({ outcome }) => entriesIn(outcome));
  const seen = new Map<bigint, Entry>();
  for (const entry of entries) {
    if (seen.get(entry.revision)?.value === undefined) {
      seen.set(entry.revision, entry);
    }
  }
  return seen;
}

function candidatesOf(
  holes: readonly bigint[],
  fillers: readonly Filler[],
  seen: ReadonlyMap<bigint, Entry>,
): Map<bigint, Filler[]> {
  const coming = [...fillers].sort((a, b) => Number(a.from - b.from));
  const candidates = new Map<bigint, Filler[]>();
  let open: Filler[] = [];
  let next = 0;
  for (const hole of holes) {
    for (; next < coming.length && coming[next]!.from <= hole; next++) {
      open.push(coming[next]!);
    }
    open = open.filter(({ to }) => to >= hole);
    const entry = seen.get(hole);
    const fits = entry && open.filter(({ write }) => mayHaveMade(write, entry));
    // If nobody can have made what was seen, the replay says so where it was seen.
    candidates.set(hole, fits && fits.length > 0 ? fits : [...open]);
  }
  return candidates;
}

function mayHaveMade(write: Write | ForeignWrite, entry: Entry): boolean {
  if (!isNamed(write.name, entry) || write.do === "delete" || write.do === "foreignDelete") {
    return false;
  }
  return (
    write.do === "update" ||
    entry.value === undefined ||
    isDeepStrictEqual(write.value, entry.value)
  );
}

function isNamed(name: Name, entry: Entry): boolean {
  return name.place === entry.place && name.key === entry.key;
}

/** Where only one write can have a revision, or a sure write only one revision, no other has it. */
function propagate(
  candidates: Map<bigint, Filler[]>,
  fillers: readonly Filler[],
): readonly Violation[] {
  const placesOf = new Map<Filler, Set<bigint>>(fillers.map((filler) => [filler, new Set()]));
  for (const [hole, all] of candidates) {
    for (const filler of all) {
      placesOf.get(filler)!.add(hole);
    }
  }
  const settled = new Set<Filler>();
  const settle = (hole: bigint, filler: Filler) => {
    settled.add(filler);
    for (const other of candidates.get(hole)!) {
      if (other !== filler) placesOf.get(other)!.delete(hole);
    }
    candidates.set(hole, [filler]);
    const elsewhere = [...placesOf.get(filler)!].filter((other) => other !== hole);
    placesOf.set(filler, new Set([hole]));
    for (const other of elsewhere) {
      candidates.set(
        other,
        candidates.get(other)!.filter((one) => one !== filler),
      );
    }
  };
  for (let before = -1; before !== settled.size; ) {
    before = settled.size;
    for (const [hole, all] of candidates) {
      if (all.length === 1 && !settled.has(all[0]!)) settle(hole, all[0]!);
    }
    for (const [filler, holes] of placesOf) {
      const [only] = holes;
      if (filler.isSure && holes.size === 1 && !settled.has(filler)) settle(only!, filler);
    }
  }
  return [
    ...[...candidates]
      .filter(([, all]) => all.length === 0)
      .map(([hole]) => nobodys(hole, fillers)),
    ...fillers.filter((one) => one.isSure && placesOf.get(one)!.size === 0).map(placeless),
  ];
}

function nobodys(hole: bigint, fillers: readonly Filler[]): Violation {
  const near = fillers.filter(({ from, to }) => from <= hole + 2n && to >= hole - 2n);
  const message = `revision ${hole} is no acknowledged write's, and no foreign write or unknown outcome can have it`;
  return { rule: "no hole", message, operations: near.slice(0, 5).map(({ act }) => act) };
}

function placeless({ act, write, from, to }: Filler): Violation {
  const message = `no revision from ${from} to ${to} is left for the foreign write ${asText(write)}`;
  return { rule: "no hole", message, operations: [act] };
}
