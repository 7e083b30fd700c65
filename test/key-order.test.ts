import fc from "fast-check";
import { expect, test } from "vitest";
import { compareKeys, intersect, prefixSuccessor } from "../src/state/key-order.ts";
import type { KeyRange } from "../src/state/requests.ts";

const text = fc.string({
  unit: fc.constantFrom("a", "b", "\u{d7ff}", "\u{e000}", "\u{ffff}", "\u{10000}", "\u{10ffff}"),
});

test("keys compare as bytes of UTF-8, not as JavaScript strings", () => {
  expect(compareKeys("\u{ffff}", "\u{10000}")).toBeLessThan(0);
  expect("\u{ffff}" < "\u{10000}").toBe(false);
});

test("the successor of a prefix is after every key with it, and before every later key without it", () => {
  fc.assert(
    fc.property(text, text, (prefix, key) => {
      const successor = prefixSuccessor(prefix);
      const isBefore = successor === undefined || compareKeys(key, successor) < 0;
      const isInRange = compareKeys(key, prefix) >= 0 && isBefore;
      expect(isInRange).toBe(key.startsWith(prefix));
    }),
    { numRuns: 5_000 },
  );
});

test.for([
  ["", undefined],
  ["a", "b"],
  ["a\u{10ffff}", "b"],
  ["\u{10ffff}\u{10ffff}", undefined],
  ["\u{d7ff}", "\u{e000}"],
  ["\u{ffff}", "\u{10000}"],
] as const)("the successor of %j is %j", ([prefix, successor]) => {
  expect(prefixSuccessor(prefix)).toBe(successor);
});

test("a key is in the intersection of two ranges exactly if it is in both", () => {
  const bound = fc.option(text, { nil: undefined });
  const range = fc.record({ from: bound, fromIncluded: fc.boolean(), before: bound });
  fc.assert(
    fc.property(range, range, text, (a, b, key) => {
      expect(contains(intersect(a, b), key)).toBe(contains(a, key) && contains(b, key));
    }),
    { numRuns: 5_000 },
  );
});

function contains({ from, fromIncluded, before }: KeyRange, key: string): boolean {
  const order = from === undefined ? 1 : compareKeys(key, from);
  const isAfterStart = order > 0 || (order === 0 && fromIncluded);
  return isAfterStart && (before === undefined || compareKeys(key, before) < 0);
}
