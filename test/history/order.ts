import type { History, Recorded, Result } from "./operation.ts";
import type { Violation } from "./violation.ts";

/** Where an operation stands in the order of revisions: it took those after `base` up to `last`. */
export interface Place {
  readonly base: bigint;
  readonly last: bigint;
}

/** The revisions between which an operation happened, by what was acknowledged before and after it. */
export interface Window {
  floor: bigint;
  ceiling: bigint;
}

export interface Order {
  /** Who took each revision, as far as replies tell. */
  readonly taken: ReadonlyMap<bigint, Recorded>;
  readonly windows: ReadonlyMap<Recorded, Window>;
  readonly violations: readonly Violation[];
}

/** Puts acts in the order that their revisions witness, and checks it against the clock. */
export function orderOf(acts: readonly Recorded[], history: History): Order {
  const { taken, violations } = takenRevisions(acts, history);
  const windows = new Map<Recorded, Window>();
  const late = sweep(acts, history, windows);
  return { taken, windows, violations: [...violations, ...late] };
}

/** Undefined for what doesn't tell: refusals, unknown outcomes, foreign writes. */
export function placeOf({ outcome }: Recorded): Place | undefined {
  if (outcome.kind !== "ok" || !("revision" in outcome.reply)) {
    return undefined;
  }
  const { reply } = outcome;
  return { base: reply.revision - BigInt(revisionsTaken(reply)), last: reply.revision };
}

function revisionsTaken(reply: { readonly do: string }): number {
  const result = reply as Result | { do: "transact"; results: readonly Result[] } | { do: "read" };
  switch (result.do) {
    case "set":
      return 1;
    case "delete":
      return Number(result.existed);
    case "update":
      return Number(result.changed);
    case "transact":
      return result.results.reduce((sum, one) => sum + revisionsTaken(one), 0);
    default:
      return 0;
  }
}

function takenRevisions(
  acts: readonly Recorded[],
  { initialRevision, finalRevision }: History,
): Pick<Order, "taken" | "violations"> {
  const taken = new Map<bigint, Recorded>();
  const violations: Violation[] = [];
  const wrong = (message: string, ...operations: Recorded[]) =>
    violations.push({ rule: "own revision", message, operations });
  for (const act of acts) {
    const place = placeOf(act);
    if (place === undefined) {
      continue;
    }
    if (place.base < initialRevision || place.last > finalRevision) {
      wrong(`${place.last} isn't from ${initialRevision} to ${finalRevision}`, act);
    }
    for (let revision = place.base + 1n; revision <= place.last; revision++) {
      const other = taken.get(revision);
      if (other !== undefined) {
        wrong(`two writes have revision ${revision}`, other, act);
      }
      taken.set(revision, act);
    }
  }
  return { taken, violations };
}

interface Event {
  readonly at: number;
  readonly act: Recorded;
  readonly isBegin: boolean;
}

/** Goes through the clock once forward, for floors, and once backward, for ceilings. */
function sweep(
  acts: readonly Recorded[],
  { initialRevision, finalRevision }: History,
  windows: Map<Recorded, Window>,
): Violation[] {
  const violations: Violation[] = [];
  const events = eventsOf(acts);
  let floor = initialRevision;
  let floorIsFrom: Recorded | undefined;
  for (const { act, isBegin } of events) {
    const place = placeOf(act);
    if (isBegin) {
      windows.set(act, { floor, ceiling: finalRevision });
      if (place !== undefined && place.base < floor) {
        violations.push(tooEarly(act, place, floor, floorIsFrom));
      }
    } else if (place !== undefined && place.last > floor) {
      floor = place.last;
      floorIsFrom = act;
    }
  }
  let ceiling = finalRevision;
  for (const { act, isBegin } of events.reverse()) {
    const base = placeOf(act)?.base;
    if (!isBegin) {
      windows.get(act)!.ceiling = ceiling;
    } else if (base !== undefined && base < ceiling) {
      ceiling = base;
    }
  }
  return violations;
}

/** At one and the same time beginnings come first: what isn't surely over goes on. */
function eventsOf(acts: readonly Recorded[]): Event[] {
  return acts
    .flatMap((act) => [
      { at: act.invokedAt, act, isBegin: true },
      { at: act.completedAt, act, isBegin: false },
    ])
    .sort((a, b) => (a.at === b.at ? Number(b.isBegin) - Number(a.isBegin) : a.at - b.at));
}

function tooEarly(
  act: Recorded,
  { base, last }: Place,
  floor: bigint,
  floorIsFrom: Recorded | undefined,
): Violation {
  const what = base === last ? `saw revision ${last}` : `took revision ${base + 1n}`;
  const message = `an operation ${what} though ${floor} was acknowledged before it began`;
  return { rule: "real time", message, operations: [floorIsFrom, act].filter((one) => !!one) };
}
