import { describeOperation, type Recorded } from "./operation.ts";

/** The rules of strict serialisability, as far as revisions witness it. */
export type Rule =
  /** Attempts under one request id are one write: all that succeed answer the same. */
  | "once only"
  /** No revision is below the first or above the last, and no two writes have the same. */
  | "own revision"
  /** Every revision is some write's. */
  | "no hole"
  /** What was over before another began comes before it. */
  | "real time"
  /** A write answers, and does, what the writes before it lead to. */
  | "write"
  /** A read answers the state at its revision. */
  | "read"
  /** What was refused had to be refused at some moment of the call. */
  | "refusal";

/** A rule that a history breaks, and the operations that show it. */
export interface Violation {
  readonly rule: Rule;
  readonly message: string;
  readonly operations: readonly Recorded[];
}

/** A violation for a person to read. */
export function describeViolation({ rule, message, operations }: Violation): string {
  return [`${rule}: ${message}`, ...operations.map(describeOperation)].join("\n    ");
}
