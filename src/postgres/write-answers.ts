import type { Entry, EntryName, Revision } from "../state/entry.ts";
import type { Failure, OperationResult, Write, WriteOutcome } from "../state/requests.ts";
import { type Part, partsOf } from "./write-batch.ts";

/** A row of what writes a batch or settles one: first one with ord 0, then one for each longer answer. */
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

/** The revision before all others. Every answer has one of its own; this is for the type. */
const none = 0n as Revision;

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
