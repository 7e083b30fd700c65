import type { EntryName } from "../state/entry.ts";
import type { StateBounds } from "../state/limits.ts";
import type { CheckEntry, Operation, Write } from "../state/requests.ts";
import { nameColumns } from "./name-columns.ts";
import { type Statement, setEntries, writeEntries } from "./statements.ts";

/** Values of answers after which a batch ends; what is left of it goes into the next. */
const maxResultBytes = 8 * 1024 * 1024;

const usPerMs = 1000;

/** One check or operation: an element of most of a batch's arrays. */
export type Part = CheckEntry | Operation;

/** The statement that applies some writes, and its parameters but for the batch's name, which come first. */
export interface Batch {
  readonly statement: Statement;
  readonly parameters: readonly unknown[];
}

/** How these writes are applied. */
export function batchOf(writes: readonly Write[], bounds: StateBounds): Batch {
  const parts = writes.flatMap(partsOf);
  const names = nameEntries(parts);
  const hasQuota = bounds.quotaEntries !== undefined || bounds.quotaBytes !== undefined;
  const isPlain = !hasQuota && names.names.length === parts.length && writes.every(isPlainSet);
  return isPlain
    ? setBatch(parts, names)
    : { statement: writeEntries, parameters: writeParameters(writes, parts, names, bounds) };
}

/** Nothing is to be judged: it can't fail, and answers nothing but that it's done. */
function isPlainSet({ checks, operations, requestId }: Write): boolean {
  return (
    checks.length === 0 &&
    requestId === undefined &&
    operations.every(
      (part) =>
        part.kind === "set" &&
        part.condition === undefined &&
        !part.returnPrevious &&
        !part.expiry.keep,
    )
  );
}

function setBatch(parts: readonly Part[], { names }: Names): Batch {
  const written = [valuesOf(parts), unlessAll(null, parts.map(ttlOf))];
  return { statement: setEntries, parameters: [...nameColumns(names), ...written] };
}

function writeParameters(
  writes: readonly Write[],
  parts: readonly Part[],
  { names, entries, wanted }: Names,
  bounds: StateBounds,
): unknown[] {
  const { runEnd, runAtomic } = runsOf(writes);
  return [
    runEnd,
    runAtomic,
    ...nameColumns(names),
    unlessAll(false, wanted),
    entries,
    parts.map((part) => part.kind),
    valuesOf(parts),
    unlessAll(null, parts.map(conditionCode)),
    unlessAll(null, parts.map(ttlOf)),
    unlessAll(
      false,
      parts.map((part) => "expiry" in part && part.expiry.keep),
    ),
    unlessAll(false, parts.map(wantsPrevious)),
    ...requestIds(writes),
    bounds.rememberRequestsMs * usPerMs,
    bounds.maxValueBytes,
    bounds.quotaEntries ?? null,
    bounds.quotaBytes ?? null,
    maxResultBytes,
  ];
}

/** The parts of a write, in the order in which they are judged. */
export function partsOf(write: Write): readonly Part[] {
  return write.checks.length === 0 ? write.operations : [...write.checks, ...write.operations];
}

/** The distinct entries of some parts. */
interface Names {
  readonly names: readonly EntryName[];
  /** Of which of them the value is needed. */
  readonly wanted: readonly boolean[];
  /** For each part the place of its entry, from 1. */
  readonly entries: readonly number[];
}

function nameEntries(parts: readonly Part[]): Names {
  const places = new Map<string, number>();
  const names: EntryName[] = [];
  const wanted: boolean[] = [];
  const entries = parts.map((part) => {
    const { scope, namespace, key } = part.name;
    const identity = `${scope.kind}\0${scope.id ?? ""}\0${namespace}\0${key}`;
    let place = places.get(identity);
    if (place === undefined) {
      place = names.push(part.name);
      places.set(identity, place);
      wanted.push(false);
    }
    wanted[place - 1] ||= wantsPrevious(part) || needsValue(part);
    return place;
  });
  return { names, entries, wanted };
}

function needsValue({ kind }: Part): boolean {
  return kind === "increment" || kind === "merge_patch" || kind === "append";
}

function wantsPrevious(part: Part): boolean {
  return part.kind !== "check" && part.returnPrevious;
}

/** Runs of single operations, and runs that are a write of several parts. */
function runsOf(writes: readonly Write[]): { runEnd: number[]; runAtomic: boolean[] } {
  const runEnd: number[] = [];
  const runAtomic: boolean[] = [];
  let end = 0;
  for (const write of writes) {
    const count = write.checks.length + write.operations.length;
    const isAtomic = count > 1;
    end += count;
    if (!isAtomic && runAtomic.at(-1) === false) {
      runEnd[runEnd.length - 1] = end;
    } else {
      runEnd.push(end);
      runAtomic.push(isAtomic);
    }
  }
  return { runEnd, runAtomic };
}

/** A request's id stands at its first part. */
function requestIds(writes: readonly Write[]): [(string | null)[], (string | null)[]] {
  if (writes.every((write) => write.requestId === undefined)) {
    return [[], []];
  }
  const ids: (string | null)[] = [];
  const fingerprints: (string | null)[] = [];
  for (const write of writes) {
    partsOf(write).forEach((_, index) => {
      ids.push(index === 0 ? (write.requestId?.id ?? null) : null);
      fingerprints.push(index === 0 ? (write.requestId?.fingerprint ?? null) : null);
    });
  }
  return [ids, fingerprints];
}

/** Each is JSON text by itself: joined, nothing needs escaping, and PostgreSQL parses it once. */
function valuesOf(parts: readonly Part[]): string {
  return `[${parts.map(jsonOf).join(",")}]`;
}

function ttlOf(part: Part): bigint | null {
  return "expiry" in part ? (part.expiry.ttlUs ?? null) : null;
}

/** The values, or an empty array when all of them are the same as what an empty one stands for. */
function unlessAll<T>(usual: T, values: readonly T[]): readonly T[] {
  return values.every((value) => value === usual) ? [] : values;
}

function jsonOf(part: Part): string {
  switch (part.kind) {
    case "set":
      return part.valueJson;
    case "delete":
    case "check":
      return "null";
    default:
      return part.argumentJson;
  }
}

function conditionCode({ condition }: Part): bigint | null {
  switch (condition?.kind) {
    case undefined:
      return null;
    case "present":
      return -1n;
    case "absent":
      return -2n;
    case "revision":
      return condition.revision;
  }
}

/** How much a write adds to a batch, in bytes. */
export function sizeOf(write: Write): number {
  return partsOf(write).reduce((bytes, part) => bytes + jsonOf(part).length, 0);
}

/** How many operations a write adds to a batch. */
export function partCount(write: Write): number {
  return write.checks.length + write.operations.length;
}
