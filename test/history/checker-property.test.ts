import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TooManyWorlds } from "./book.ts";
import { checkHistory } from "./check.ts";
import { damages } from "./damage.ts";
import type { History } from "./operation.ts";
import { Random } from "./random.ts";
import { type Bug, type Simulation, simulate } from "./simulator.ts";
import { describeViolation, type Violation } from "./violation.ts";

const sizes = { seed: fc.integer(), calls: fc.integer({ min: 1, max: 120 }), overlap: fc.nat(12) };
/** Long enough that most histories have what is to be damaged. */
const longSizes = {
  ...sizes,
  calls: fc.integer({ min: 60, max: 120 }),
  withForeigner: fc.boolean(),
};

test("a history that came about one operation after the other passes, however its calls overlap", () => {
  fc.assert(fc.property(fc.record({ ...sizes, withForeigner: fc.boolean() }), expectToPass), {
    numRuns: 150,
  });
});

test("a history with foreign writers and unknown outcomes passes: there are no false alarms", () => {
  const overlap = fc.nat(5);
  fc.assert(
    fc.property(fc.record({ ...sizes, overlap, withUnknowns: fc.constant(true) }), expectToPass),
    { numRuns: 150 },
  );
});

function expectToPass(simulation: Simulation): void {
  expect(check(simulate(simulation).history).map(describeViolation)).toEqual([]);
}

/** One history in ten thousand has too many unknown outcomes at once: nothing is said of it. */
function check(history: History): Violation[] {
  try {
    return checkHistory(history);
  } catch (error) {
    fc.pre(!(error instanceof TooManyWorlds));
    throw error;
  }
}

describe("a history that isn't right doesn't pass:", () => {
  test.each(Object.keys(damages))("%s", (kind) => {
    fc.assert(
      fc.property(fc.record(longSizes), (simulation) => {
        const damaged = damages[kind]!(simulate(simulation), new Random(simulation.seed));
        fc.pre(damaged !== undefined);
        expect(checkHistory(damaged)).not.toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  const bugs: Bug[] = ["lost update", "lost write", "double apply", "half a Transact"];
  test.each(bugs)("%s", (bug) => {
    fc.assert(
      fc.property(fc.record(longSizes), (simulation) => {
        const { history, hasBug } = simulate({ ...simulation, bug });
        fc.pre(hasBug);
        expect(checkHistory(history)).not.toEqual([]);
      }),
      { numRuns: 40 },
    );
  });
});
