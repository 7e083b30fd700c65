import type { Cancellation } from "../state/cancellation.ts";
import type { Entry, EntryName } from "../state/entry.ts";
import { StateError, TooLargeToRead } from "../state/errors.ts";
import { maxReadableValueBytes } from "../state/limits.ts";
import type { At } from "../state/store.ts";
import { ReadLost } from "./errors.ts";
import { type Cost, Lane, type LaneLimits, type Remedy } from "./lane.ts";
import { nameColumns, placeColumns } from "./name-columns.ts";
import type { PluginDatabase } from "./plugin-database.ts";
import { asOneSnapshot, entryOf, isLarge, type ReadRow, revisionOf } from "./read-rows.ts";
import { readEntries, readEntry, readLargeEntries, readPlace } from "./statements.ts";

/** Bytes of large values after which one statement of a batch ends; the next goes on. */
const maxReadBytes = 8 * 1024 * 1024;

/** An entry, or none, with the plugin's revision at that moment. */
export type Read = At & { readonly entry: Entry | undefined };

/** Entries of one snapshot, or none, with the plugin's revision at that moment. */
export type ReadAll = At & { readonly entries: readonly (Entry | undefined)[] };

/** What became of a call's names. */
interface Answer extends ReadAll {
  /** Some of several values are missing: they are too large to be read beside those of other calls. */
  readonly isTooLarge: boolean;
}

/** Names that a call may have to be read together with others. */
const maxSharedNames = 32;
/**
 * How much of a BatchGet the first of two statements reads. The second begins later, its rows are taken in
 * while the first goes on, and where there are two cores it is on ours.
 */
const firstPart = 5 / 8;

/** Reads single entries of one plugin, those of concurrent calls in one statement. */
export class Reader {
  readonly #database: PluginDatabase;
  readonly #lane: Lane<readonly EntryName[], Answer>;

  constructor(database: PluginDatabase, limits: LaneLimits) {
    this.#database = database;
    this.#lane = new Lane({ run: (calls) => this.#read(calls), cost, remedy }, limits);
  }

  /** See {@link Store.get}. */
  async get(name: EntryName, signal: Cancellation): Promise<Read> {
    const { entries, revision } = await this.#lane.submit([name], signal);
    return { entry: entries[0], revision };
  }

  /** Entries of one snapshot; undefined if they are too many, or too large, to share a statement. */
  async getShared(names: readonly EntryName[], signal: Cancellation): Promise<ReadAll | undefined> {
    if (names.length > maxSharedNames) {
      return undefined;
    }
    const answer = await this.#lane.submit(names, signal);
    return answer.isTooLarge ? undefined : answer;
  }

  /** Entries of one snapshot, by statements of their own. */
  async readAll(names: readonly EntryName[]): Promise<ReadAll> {
    let rows = (await this.#readParts(names)) ?? (await this.#readSmall(names));
    if (rows.some(isLarge)) {
      rows = await this.#database.read<ReadRow>(readLargeEntries, [
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

  async #read(calls: readonly (readonly EntryName[])[]): Promise<(Answer | undefined)[]> {
    const rows = await this.#readSmall(calls.flat());
    const revision = revisionOf(rows);
    const large: number[] = [];
    let next = 0;
    const answers = calls.map((names, index): Answer | undefined => {
      let isTooLarge = false;
      const entries = names.map((name) => {
        const row = rows[next++];
        isTooLarge ||= row !== undefined && isLarge(row);
        return row && entryOf(name, row);
      });
      if (isTooLarge && names.length === 1) {
        large.push(index);
        return undefined;
      }
      return { entries, revision, isTooLarge };
    });
    if (large.length > 0) {
      await this.#readLarge(calls, large, answers);
    }
    return answers;
  }

  /**
   * A row for each of many names of one place, by two statements at once, which takes three quarters of the
   * time. Undefined when others would have to wait for it, or it was no single snapshot.
   */
  async #readParts(names: readonly EntryName[]): Promise<ReadRow[] | undefined> {
    const place = placeColumns(names);
    if (names.length <= maxSharedNames || place === undefined) {
      return undefined;
    }
    const [kind, id, namespace, keys] = place;
    const middle = Math.ceil(keys.length * firstPart);
    const parts = await this.#database.readTwice<ReadRow>(
      readPlace,
      [kind, id, namespace, keys.slice(0, middle)],
      [kind, id, namespace, keys.slice(middle)],
    );
    return parts && asOneSnapshot(...parts);
  }

  /** A row for each name, without values that are large. */
  #readSmall(names: readonly EntryName[]): Promise<ReadRow[]> {
    const place = placeColumns(names);
    if (place === undefined) {
      return this.#database.read<ReadRow>(readEntries, nameColumns(names));
    }
    const [kind, id, namespace, keys] = place;
    return keys.length > 1
      ? this.#database.read<ReadRow>(readPlace, place)
      : this.#database.read<ReadRow>(readEntry, [kind, id, namespace, keys[0]]);
  }

  /** Answers as many of the calls for a large one as go into one statement, the first at least. */
  async #readLarge(
    calls: readonly (readonly EntryName[])[],
    large: readonly number[],
    answers: (Answer | undefined)[],
  ): Promise<void> {
    const wanted = large.flatMap((index) => calls[index] ?? []);
    const rows = await this.#database.read<ReadRow>(readLargeEntries, [
      ...nameColumns(wanted),
      maxReadBytes,
    ]);
    const revision = revisionOf(rows);
    for (const [at, row] of rows.entries()) {
      const index = large[at];
      if (index !== undefined) {
        answers[index] = { entries: [entryOf(wanted[at], row)], revision, isTooLarge: false };
      }
    }
  }
}

function cost(names: readonly EntryName[]): Cost {
  return { weight: names.length, bytes: 0 };
}

function remedy(error: unknown): Remedy {
  if (error instanceof ReadLost) {
    return "again";
  }
  return error instanceof StateError && error.isOneCallsFault ? "one_by_one" : "fail";
}
