import type { Entry, EntryName, Revision } from "../state/entry.ts";
import type { StateBounds } from "../state/limits.ts";
import type {
  CheckEntry,
  Failure,
  Operation,
  OperationResult,
  Write,
  WriteOutcome,
} from "../state/requests.ts";

/** A row of write_entries or settle_batch: first one with ord 0, then one for each longer answer. */
export interface AnswerRow {
  readonly ord: number;
  /** As PostgreSQL writes an array: `{0,1,-2}`. */
  readonly outcomes: string | null;
  readonly revisions: string | null;
  readonly value: string | null;
  readonly previous: string | null;
  /** JSON text. */
  readonly meta: string | null;
}

/** What {@link AnswerRow.outcomes} says; migrations/0003 has the same numbers. */
const outcome = {
  absent: 0,
  nothingToChange: 2,
  conditionOfEntry: -1,
  conditionOfNone: -2,
  wrongType: -3,
  outOfBounds: -4,
  tooLarge: -5,
  overEntries: -6,
  overBytes: -7,
  requestIdReused: -8,
  notLookedAt: -9,
} as const;

/** Values of answers after which a batch ends; what is left of it goes into the next. */
const maxResultBytes = 8 * 1024 * 1024;

const usPerMs = 1000;

/** The revision before all others. Every answer has one of its own; this is for the type. */
const none = 0n as Revision;

type Part = CheckEntry | Operation;

/** The parameters of write_entries for these writes, from the fourth on. */
export function batchParameters(writes: readonly Write[], bounds: StateBounds): unknown[] {
  const parts = writes.flatMap(partsOf);
  const { names, entries, wanted } = nameEntries(parts);
  const { runEnd, runAtomic } = runsOf(writes);
  return [
    runEnd,
    runAtomic,
    names.map((name) => name.scope.kind),
    names.map((name) => name.scope.id ?? null),
    names.map((name) => name.namespace),
    names.map((name) => name.key),
    unlessAll(false, wanted),
    entries,
    parts.map((part) => part.kind),
    // Each is JSON text by itself: joined, nothing needs escaping, and PostgreSQL parses it once.
    `[${parts.map(jsonOf).join(",")}]`,
    unlessAll(null, parts.map(conditionCode)),
    unlessAll(
      null,
      parts.map((part) => ("expiry" in part ? (part.expiry.ttlUs ?? null) : null)),
    ),
    unlessAll(
      false,
      parts.map((part) => "expiry" in part && part.expiry.keep),
    ),
    unlessAll(false, parts.map(wantsPrevious)),
    ...requestIds(writes),
    BigInt(bounds.rememberRequestsMs * usPerMs),
    bounds.maxValueBytes,
    bounds.quotaEntries ?? null,
    bounds.quotaBytes ?? null,
    maxResultBytes,
  ];
}

/**
 * What the rows of a batch say of each of its writes, in order; undefined for one that wasn't looked
 * at, because the answers before it were large enough.
 */
export function batchOutcomes(
  writes: readonly Write[],
  rows: readonly AnswerRow[],
): (WriteOutcome | undefined)[] {
  const [head, ...longer] = rows;
  const outcomes = numbersOf(head?.outcomes).map(Number);
  const revisions = numbersOf(head?.revisions);
  const details = new Map(longer.map((row) => [row.ord - 1, row]));
  let from = 0;
  return writes.map((write) => {
    const answers = partsOf(write).map((part, index): PartAnswer => {
      const at = from + index;
      return { part, outcome: outcomes[at], revision: revisions[at], detail: details.get(at) };
    });
    from += answers.length;
    return outcomeOf(write, answers);
  });
}

/** The answer to one part of a write. */
interface PartAnswer {
  readonly part: Part;
  readonly outcome: number | undefined;
  /** A number's text, or `NULL`. */
  readonly revision: string | undefined;
  readonly detail: AnswerRow | undefined;
}

function outcomeOf(write: Write, answers: readonly PartAnswer[]): WriteOutcome | undefined {
  switch (answers[0]?.outcome) {
    case outcome.notLookedAt:
      return undefined;
    case outcome.requestIdReused:
      return { kind: "request_id_reused" };
    case outcome.overEntries:
      return { kind: "over_quota", quota: "entries", ...usage(answers[0]) };
    case outcome.overBytes:
      return { kind: "over_quota", quota: "bytes", ...usage(answers[0]) };
  }
  if (answers.some((answer) => (answer.outcome ?? 0) < 0)) {
    return { kind: "not_done", failures: failuresOf(write, answers) };
  }
  const results = answers.slice(write.checks.length).map(resultOf);
  return { kind: "done", results, revision: revisionOf(answers.at(-1)?.revision) ?? none };
}

function usage({ detail }: PartAnswer): { used: bigint; asked: bigint } {
  const { used, asked } = metaOf(detail);
  return { used: BigInt(used ?? 0), asked: BigInt(asked ?? 0) };
}

function failuresOf(write: Write, answers: readonly PartAnswer[]): Failure[] {
  return answers.flatMap((answer, index) => {
    const reason = failureReason(answer.outcome);
    if (reason === undefined) {
      return [];
    }
    const isCheck = index < write.checks.length;
    return {
      part: isCheck ? ("check" as const) : ("operation" as const),
      index: isCheck ? index : index - write.checks.length,
      reason,
      condition: answer.part.condition,
      current: revisionOf(answer.revision),
      tooLarge: reason === "too_large" ? sizeAndLimit(answer) : undefined,
    };
  });
}

function sizeAndLimit({ detail }: PartAnswer): { size: number; limit: number } {
  const { size, limit } = metaOf(detail);
  return { size: size ?? 0, limit: limit ?? 0 };
}

function failureReason(code: number | undefined): Failure["reason"] | undefined {
  switch (code) {
    case outcome.conditionOfEntry:
    case outcome.conditionOfNone:
      return "condition";
    case outcome.wrongType:
      return "wrong_type";
    case outcome.outOfBounds:
      return "out_of_bounds";
    case outcome.tooLarge:
      return "too_large";
    default:
      return undefined;
  }
}

function resultOf({ part, outcome: code, revision, detail }: PartAnswer): OperationResult {
  const existed = code !== outcome.absent;
  return {
    existed,
    changed: code !== outcome.nothingToChange && (existed || part.kind !== "delete"),
    revision: revisionOf(revision) ?? none,
    valueJson: detail?.value ?? undefined,
    previous: previousOf(part.name, detail),
  };
}

function previousOf(name: EntryName, row: AnswerRow | undefined): Entry | undefined {
  if (row === undefined || row.previous === null) {
    return undefined;
  }
  const meta = metaOf(row);
  return {
    ...name,
    valueJson: row.previous,
    revision: BigInt(meta.revision ?? 0) as Revision,
    createdUs: microseconds(meta.created_us),
    updatedUs: microseconds(meta.updated_us),
    expiresUs: microseconds(meta.expires_us),
  };
}

/** Numbers of our own making, all within what JavaScript holds exactly until the year 2255. */
type Meta = Partial<
  Record<
    "revision" | "created_us" | "updated_us" | "expires_us" | "size" | "limit" | "used" | "asked",
    number | null
  >
>;

function metaOf(row: AnswerRow | undefined): Meta {
  // The keys are those that write_entries gives.
  return row?.meta === undefined || row.meta === null ? {} : (JSON.parse(row.meta) as Meta);
}

function microseconds(value: number | null | undefined): bigint | undefined {
  return value === null || value === undefined ? undefined : BigInt(value);
}

function revisionOf(text: string | undefined): Revision | undefined {
  return text === undefined || text === "NULL" ? undefined : (BigInt(text) as Revision);
}

/** The elements of an array of numbers as PostgreSQL writes it. */
function numbersOf(text: string | null | undefined): string[] {
  return text === undefined || text === null || text === "{}" ? [] : text.slice(1, -1).split(",");
}

function partsOf(write: Write): readonly Part[] {
  return write.checks.length === 0 ? write.operations : [...write.checks, ...write.operations];
}

/** The distinct entries of the parts, and for each part the place of its entry, from 1. */
function nameEntries(parts: readonly Part[]) {
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
