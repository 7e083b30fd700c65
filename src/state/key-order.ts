import type { KeyRange } from "./requests.ts";

/**
 * Compares two keys as PostgreSQL's collation "C" does: as bytes of UTF-8. JavaScript's `<` compares
 * UTF-16 code units, which differs above U+FFFF.
 */
export function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/**
 * The smallest string that is greater than every string with this prefix; undefined when there is
 * none (the prefix is empty, or all U+10FFFF).
 */
export function prefixSuccessor(prefix: string): string | undefined {
  const points = Array.from(prefix, (character) => character.codePointAt(0) ?? 0);
  while (points.length > 0) {
    const last = points.pop() ?? 0;
    if (last < 0x10ffff) {
      // The code points from D800 to DFFF are surrogates: no text holds them.
      return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1);
    }
  }
  return undefined;
}

/** The keys that begin with a prefix; all keys if it is empty. */
export function prefixRange(prefix: string): KeyRange {
  return { from: prefix || undefined, fromIncluded: true, before: prefixSuccessor(prefix) };
}

/** The keys that lie in both ranges. */
export function intersect(a: KeyRange, b: KeyRange): KeyRange {
  const before =
    a.before === undefined || (b.before !== undefined && compareKeys(b.before, a.before) < 0)
      ? b.before
      : a.before;
  return { ...laterStart(a, b), before };
}

function laterStart(a: KeyRange, b: KeyRange): Pick<KeyRange, "from" | "fromIncluded"> {
  if (a.from === undefined || b.from === undefined) {
    const { from, fromIncluded } = a.from === undefined ? b : a;
    return { from, fromIncluded };
  }
  const order = compareKeys(a.from, b.from);
  if (order === 0) {
    return { from: a.from, fromIncluded: a.fromIncluded && b.fromIncluded };
  }
  const { from, fromIncluded } = order > 0 ? a : b;
  return { from, fromIncluded };
}
