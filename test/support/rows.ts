import { isDeepStrictEqual } from "node:util";
import { expect } from "vitest";
import type { TestClient } from "./client.ts";
import { identity, type Model, type Name } from "./model.ts";
import { type Operation, type Outcome, perform, revisionsTaken } from "./operations.ts";

/** An operation that is yet to be told which revision its entries have. */
export type Planned = (revisionOf: (name: Name) => bigint | undefined) => Operation;

/** An operation of a history that ran beside others, and what it answered. */
export interface Done {
  readonly operation: Operation;
  readonly outcome: Outcome;
  /** The highest revision that any reply had told before this operation was sent. */
  readonly floor: bigint;
  /** When it was sent and answered, among all that was. */
  readonly sent: number;
  readonly answered: number;
}

/**
 * Does operations in rows: each row one after the other, the rows beside each other, and row n on
 * client n.
 */
export async function performRows(
  clients: readonly TestClient[],
  rows: readonly (readonly Planned[])[],
): Promise<Done[]> {
  const done: Done[] = [];
  const seen = new Map<string, bigint>();
  let highest = 0n;
  let time = 0;
  const run = async (row: readonly Planned[], number: number) => {
    for (const planned of row) {
      const operation = planned((name) => seen.get(identity(name)));
      const [floor, sent] = [highest, time++];
      const outcome = await perform(clients[number % clients.length]!, operation);
      if (!("refused" in outcome)) {
        highest = outcome.revision > highest ? outcome.revision : highest;
      }
      learn(seen, operation, outcome);
      done.push({ operation, outcome, floor, sent, answered: time++ });
    }
  };
  await Promise.all(rows.map(run));
  return done;
}

/** Notes the revisions that a reply tells. */
function learn(seen: Map<string, bigint>, operation: Operation, outcome: Outcome): void {
  if (operation.do === "transact" && "results" in outcome) {
    for (const [index, one] of operation.operations.entries()) {
      learn(seen, one, outcome.results[index]!);
    }
  } else if ("name" in operation && !("refused" in outcome)) {
    const revision = "entry" in outcome ? outcome.entry?.revision : outcome.revision;
    revision !== undefined && seen.set(identity(operation.name), revision);
  }
}

/**
 * Fails unless the model, doing the history's writes one after the other in the order of their
 * revisions, answers each operation as it was answered; and unless that order keeps to the clock. A
 * refusal tells no revision: the model must have given it at some moment between its call and its answer.
 */
export function expectExplained(model: Model, history: readonly Done[]): void {
  const writes = history
    .filter(({ outcome }) => revisionsTaken(outcome) > 0)
    .sort((a, b) => Number(revisionAfter(a) - revisionAfter(b)));
  const others = history.filter(({ outcome }) => revisionsTaken(outcome) === 0);
  const unexplained = new Set(others);
  const explainOthers = () => {
    for (const done of unexplained) {
      if ("refused" in done.outcome) {
        isRefusedNow(model, done, history) && unexplained.delete(done);
      } else if (done.outcome.revision === model.revision) {
        expect(done.outcome).toEqual(model.preview(done.operation));
        expect(model.revision).toBeGreaterThanOrEqual(done.floor);
        unexplained.delete(done);
      }
    }
  };
  explainOthers();
  for (const { operation, outcome, floor } of writes) {
    expect(model.revision).toBeGreaterThanOrEqual(floor);
    expect(outcome).toEqual(model.apply(operation));
    explainOthers();
  }
  expect([...unexplained]).toEqual([]);
}

function isRefusedNow(model: Model, { operation, ...done }: Done, history: readonly Done[]) {
  const later = history.filter((other) => other.sent > done.answered && isWrite(other));
  const isTooLate = later.some((other) => revisionAfter(other) <= model.revision);
  return (
    model.revision >= done.floor &&
    !isTooLate &&
    isDeepStrictEqual(model.preview(operation), done.outcome)
  );
}

function isWrite({ outcome }: Done): boolean {
  return revisionsTaken(outcome) > 0;
}

function revisionAfter({ outcome }: Done): bigint {
  return "refused" in outcome ? 0n : outcome.revision;
}
