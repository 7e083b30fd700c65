import { envPrefix } from "./option.ts";
import { healthOptions, serveOptions } from "./options.ts";
import type { Environment } from "./resolve.ts";

/** The share of letters that a typo and the word that was meant have in common, at least. */
const minSimilarity = 0.5;

const knownNames: readonly string[] = [serveOptions, healthOptions]
  .flatMap((table) => Object.values(table))
  .flatMap(({ env }) => (env === null ? [] : [env]));

/**
 * A warning for each variable that looks like ours and isn't: a misspelt one would otherwise be
 * ignored silently. Not an error, for another release's variable may be set beside ours.
 */
export function unknownVariables(environment: Environment): string[] {
  return Object.keys(environment)
    .filter((name) => name.startsWith(envPrefix) && !knownNames.includes(name))
    .map((name) => `${name} is no environment variable of this release${didYouMean(name)}`);
}

function didYouMean(name: string): string {
  const [nearest] = knownNames
    .map((known) => ({ known, similarity: similarity(words(name), words(known)) }))
    .filter((candidate) => candidate.similarity >= minSimilarity)
    .sort((a, b) => b.similarity - a.similarity);
  return nearest === undefined ? "" : `; did you mean ${nearest.known}?`;
}

function words(name: string): string {
  return name.startsWith(envPrefix) ? name.slice(envPrefix.length) : name;
}

function similarity(one: string, other: string): number {
  return 1 - editDistance(one, other) / Math.max(one.length, other.length, 1);
}

/** Letters to insert, remove or replace to make one word of the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [i, letter] of [...from].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...to].entries()) {
      const replaced = (row[j] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
