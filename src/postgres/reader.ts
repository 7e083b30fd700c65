import type { Cancellation } from "../state/cancellation.ts";
import type { Entry, EntryName, Revision } from "../state/entry.ts";
import { StateError, TooLargeToRead } from "../state/errors.ts";
import { maxReadableValueBytes } from "../state/limits.ts";
import type { At } from "../state/store.ts";
import { ReadLost } from "./errors.ts";
import { Lane, type LaneLimits, type Remedy } from "./lane.ts";
import { nameColumns, placeColumns } from "./name-columns.ts";
import type { PluginDatabase } from "./plugin-database.ts";
import { readEntries, readLargeEntries, readPlace } from "./statements.ts";

/** Bytes of large values after which one statement of a batch ends; the next goes on. */
const maxReadBytes = 8 * 1024 * 1024;

/** One entry that was asked for; its own columns are null when there is none. */
type Row = readonly [
  value: string | null,
  revision: bigint | null,
  createdUs: bigint | null,
  updatedUs: bigint | null,
  expiresUs: bigint | null,
  /** Of the snapshot: in the first row at least. */
  pluginRevision: bigint | null,
];

/** An entry, or none, with the plugin's revision at that moment. */
export type Read = At & { readonly entry: Entry | undefined };

/** Reads single entries of one plugin, concurrent calls in one statement. */
export class Reader {
  readonly #database: PluginDatabase;
  readonly #lane: Lane<EntryName, Read>;

  constructor(database: PluginDatabase, limits: LaneLimits) {
    this.#database = database;
    this.#lane = new Lane(
      { run: (names) => this.#read(names), cost: () => oneCall, remedy },
      limits,
    );
  }

  /** See {@link Store.get}. */
  get(name: EntryName, signal: Cancellation): Promise<Read> {
    return this.#lane.submit(name, signal);
  }

  /** Entries of one snapshot. */
  async readAll(
    names: readonly EntryName[],
  ): Promise<At & { readonly entries: readonly (Entry | undefined)[] }> {
    let rows = await this.#readSmall(names);
    if (rows.some(isLarge)) {
      rows = await this.#database.read<Row>(readLargeEntries, [
        ...nameColumns(names),
        maxReadableValueBytes,
      ]);
    }
    if (rows.length < names.length) {
      throw new TooLargeToRead(maxReadableValueBytes);
    }
    const entries = rows.map((row, index) => entryOf(names[index], row));
    return { entries, revision: revisionOf(rows) };
  }

  async #read(names: readonly EntryName[]): Promise<(Read | undefined)[]> {
    const rows = await this.#readSmall(names);
    const revision = revisionOf(rows);
    const large: number[] = [];
    const answers = rows.map((row, index): Read | undefined => {
      if (isLarge(row)) {
        large.push(index);
        return undefined;
      }
      return { entry: entryOf(names[index], row), revision };
    });
    if (large.length > 0) {
      await this.#readLarge(names, large, answers);
    }
    return answers;
  }

  /** A row for each name, without values that are large. */
  #readSmall(names: readonly EntryName[]): Promise<Row[]> {
    const place = placeColumns(names);
    return place === undefined
      ? this.#database.read<Row>(readEntries, nameColumns(names))
      : this.#database.read<Row>(readPlace, place);
  }

  /** Answers as many of the large ones as go into one statement, the first at least. */
  async #readLarge(
    names: readonly EntryName[],
    large: readonly number[],
    answers: (Read | undefined)[],
  ): Promise<void> {
    const wanted = names.filter((_, index) => large.includes(index));
    const rows = await this.#database.read<Row>(readLargeEntries, [
      ...nameColumns(wanted),
      maxReadBytes,
    ]);
    const revision = revisionOf(rows);
    for (const [at, row] of rows.entries()) {
      const index = large[at];
      if (index !== undefined) {
        answers[index] = { entry: entryOf(names[index], row), revision };
      }
    }
  }
}

const pluginRevision = 5;
const oneCall = { weight: 1, bytes: 0 };

function remedy(error: unknown): Remedy {
  if (error instanceof ReadLost) {
    return "again";
  }
  return error instanceof StateError && error.isOneCallsFault ? "one_by_one" : "fail";
}

/** There is an entry, but not its value: no entry has none. */
function isLarge([value, revision]: Row): boolean {
  return value === null && revision !== null;
}

function revisionOf(rows: readonly Row[]): Revision {
  return (rows[0]?.[pluginRevision] ?? 0n) as Revision;
}

function entryOf(name: EntryName | undefined, row: Row): Entry | undefined {
  const [value, revision, createdUs, updatedUs, expiresUs] = row;
  if (name === undefined || revision === null) {
    return undefined;
  }
  return {
    scope: name.scope,
    namespace: name.namespace,
    key: name.key,
    valueJson: value ?? undefined,
    revision: revision as Revision,
    createdUs: createdUs ?? undefined,
    updatedUs: updatedUs ?? undefined,
    expiresUs: expiresUs ?? undefined,
  };
}
