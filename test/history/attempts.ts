import { isDeepStrictEqual } from "node:util";
import type { Recorded } from "./operation.ts";
import type { Violation } from "./violation.ts";

/** Operations of which each was done once or not at all. */
export interface Acts {
  readonly acts: readonly Recorded[];
  readonly violations: readonly Violation[];
}

/**
 * Makes one act of the attempts under one request id. It was done after the first of them began and
 * before the first that succeeded was over. What wasn't done is left out.
 */
export function actsOf(operations: readonly Recorded[]): Acts {
  const acts: Recorded[] = [];
  const attempts = new Map<string, Recorded[]>();
  for (const operation of operations) {
    const requestId = requestIdOf(operation);
    if (operation.outcome.kind === "notDone") {
      continue;
    }
    if (requestId === undefined || operation.outcome.kind === "refused") {
      acts.push(withEndOf(operation));
    }
    if (requestId !== undefined) {
      attempts.set(requestId, [...(attempts.get(requestId) ?? []), operation]);
    }
  }
  const merged = [...attempts.values()].map(merge);
  return {
    acts: [...acts, ...merged.flatMap((one) => one.acts)],
    violations: merged.flatMap((one) => one.violations),
  };
}

function requestIdOf({ request }: Recorded): string | undefined {
  return "requestId" in request ? request.requestId : undefined;
}

/** Of an unknown outcome nobody knows the end either. */
function withEndOf(operation: Recorded): Recorded {
  return operation.outcome.kind === "unknown"
    ? { ...operation, completedAt: Number.POSITIVE_INFINITY }
    : operation;
}

function merge(attempts: readonly Recorded[]): Acts {
  const candidates = attempts.filter(({ outcome }) => outcome.kind !== "refused");
  const succeeded = candidates.filter(({ outcome }) => outcome.kind === "ok");
  const told = succeeded[0] ?? candidates[0];
  if (told === undefined) {
    return { acts: [], violations: [] };
  }
  const invokedAt = Math.min(...candidates.map((attempt) => attempt.invokedAt));
  const completedAt = Math.min(...succeeded.map((attempt) => attempt.completedAt));
  return {
    acts: [{ ...told, invokedAt, completedAt }],
    violations: [
      ...succeeded
        .filter((attempt) => !isDeepStrictEqual(attempt.outcome, told.outcome))
        .map((attempt) => onceOnly("was done twice, or answers differ", told, attempt)),
      ...attempts
        .filter((attempt) => attempt.outcome.kind === "refused" && attempt.invokedAt > completedAt)
        .map((attempt) => onceOnly("was refused when it had been done", told, attempt)),
    ],
  };
}

function onceOnly(what: string, ...operations: Recorded[]): Violation {
  return { rule: "once only", message: `a write with a request id ${what}`, operations };
}
