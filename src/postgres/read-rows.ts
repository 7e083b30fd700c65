import type { Entry, EntryName, Revision } from "../state/entry.ts";
import type { Page } from "../state/store.ts";

/** An entry's own columns, null when there is none. */
type EntryColumns<EntryRevision> = readonly [
  value: string | null,
  revision: EntryRevision,
  createdUs: bigint | null,
  updatedUs: bigint | null,
  expiresUs: bigint | null,
];

/** One of a page's entries; in the last row, without a key, the revision is the plugin's. */
export type ListRow = readonly [...EntryColumns<bigint>, key: string | null, isMore: boolean];

/** One entry that was asked for. */
export type ReadRow = readonly [
  ...EntryColumns<bigint | null>,
  /** Of the snapshot: in the first row at least. */
  pluginRevision: bigint | null,
  /** When that was, by the database's clock: in the first row of those of one place. */
  readUs?: bigint | null,
];

const expiresUs = 4;
const pluginRevision = 5;
const readUs = 6;

/** There is an entry, but not its value: no entry has none. */
export function isLarge([value, revision]: ReadRow): boolean {
  return value === null && revision !== null;
}

/** The plugin's, at the moment of the snapshot. */
export function revisionOf(rows: readonly ReadRow[]): Revision {
  return (rows[0]?.[pluginRevision] ?? 0n) as Revision;
}

/** The entry in a row, if there is one. */
export function entryOf(name: EntryName | undefined, row: ReadRow): Entry | undefined {
  const [, revision] = row;
  return name === undefined || revision === null ? undefined : entryWith(name, revision, row);
}

function entryWith(
  { scope, namespace, key }: EntryName,
  revision: bigint,
  [value, , createdUs, updatedUs, expiresUs]: readonly [...EntryColumns<unknown>, ...unknown[]],
): Entry {
  return {
    scope,
    namespace,
    key,
    valueJson: value ?? undefined,
    revision: revision as Revision,
    createdUs: createdUs ?? undefined,
    updatedUs: updatedUs ?? undefined,
    expiresUs: expiresUs ?? undefined,
  };
}

/** The page of entries of one scope and namespace that is in some rows. */
export function pageOf(
  { scope, namespace }: Pick<EntryName, "scope" | "namespace">,
  rows: readonly ListRow[],
): Page {
  const entries: Entry[] = [];
  for (const row of rows) {
    const [, revision, , , , key, more] = row;
    if (key === null) {
      return { entries, more, revision: revision as Revision };
    }
    entries.push(entryWith({ scope, namespace, key }, revision, row));
  }
  throw new Error("a page has no end");
}

/**
 * The rows of two statements of one place as if one had read them; undefined if something was written
 * between the two: every write that can be seen has changed the plugin's revision. What time alone changes is
 * seen as it was at the later of them.
 */
export function asOneSnapshot(
  first: readonly ReadRow[],
  second: readonly ReadRow[],
): ReadRow[] | undefined {
  if (revisionOf(first) !== revisionOf(second)) {
    return undefined;
  }
  const [firstUs, secondUs] = [first[0]?.[readUs] ?? 0n, second[0]?.[readUs] ?? 0n];
  const laterUs = firstUs > secondUs ? firstUs : secondUs;
  return [...first, ...second].map((row) => hiddenAfter(row, laterUs));
}

/** The row, or one without its entry if that has expired. */
function hiddenAfter(row: ReadRow, us: bigint): ReadRow {
  const end = row[expiresUs];
  return end !== null && end <= us ? [null, null, null, null, null, row[pluginRevision]] : row;
}
