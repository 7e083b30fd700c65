import type { Entry, EntryName, Revision } from "../state/entry.ts";
import { StateError, TooLargeToRead } from "../state/errors.ts";
import { maxReadableValueBytes, type StateBounds } from "../state/limits.ts";
import type { ListEntries, Write, WriteOutcome } from "../state/requests.ts";
import type { At, Store } from "../state/store.ts";
import { Lane, type LaneLimits, type LaneWork } from "./lane.ts";
import { PluginDatabase } from "./plugin-database.ts";
import type { Pool } from "./pool.ts";
import { listEntries, readEntries } from "./statements.ts";
import { Writer } from "./writer.ts";

/** What a store needs beside its pool. */
export interface StoreOptions {
  readonly pool: Pool;
  /** The plugin whose state it is: its id in the registry. */
  readonly pluginId: string;
  /** Makes a counter of revisions for a plugin that has none; false when it isn't registered. */
  readonly addCounter: () => Promise<boolean>;
  readonly reads: LaneLimits;
  readonly writes: LaneLimits;
  /** Of everything that reads more than single entries. */
  readonly scans: LaneLimits;
  readonly bounds: StateBounds;
  /** How long to ask for the outcome of a write whose connection broke, in milliseconds. */
  readonly settleMs: number;
}

/** Bytes of values after which one statement of a batch of reads ends; the next goes on. */
const maxReadBytes = 8 * 1024 * 1024;

interface EntryRow {
  readonly value: string | null;
  readonly revision: bigint;
  readonly created_us: bigint | null;
  readonly updated_us: bigint | null;
  readonly expires_us: bigint | null;
}

/** One entry that was asked for; its own columns are null when there is none. */
interface ReadRow extends Omit<EntryRow, "revision"> {
  readonly revision: bigint | null;
  readonly plugin_revision: bigint;
}

type Read = At & { readonly entry: Entry | undefined };

/** The state of one plugin in PostgreSQL. */
export class PostgresStore implements Store {
  readonly #database: PluginDatabase;
  readonly #reads: Lane<EntryName, Read>;
  readonly #scans: Lane<() => Promise<unknown>, { readonly result: unknown }>;
  readonly #writer: Writer;

  constructor(options: StoreOptions) {
    const { pool, pluginId, addCounter, settleMs, bounds } = options;
    this.#database = new PluginDatabase(pool, pluginId, addCounter);
    this.#reads = new Lane(
      { run: (names) => this.#read(names), cost: () => oneCall, remedy: remedyOf },
      options.reads,
    );
    this.#scans = new Lane(scanWork, options.scans);
    this.#writer = new Writer(this.#database, { limits: options.writes, bounds, settleMs });
  }

  get(name: EntryName, signal: AbortSignal): Promise<Read> {
    return this.#reads.submit(name, signal);
  }

  write(write: Write, signal: AbortSignal): Promise<WriteOutcome> {
    return this.#writer.write(write, signal);
  }

  batchGet(
    names: readonly EntryName[],
    signal: AbortSignal,
  ): Promise<At & { readonly entries: readonly (Entry | undefined)[] }> {
    return this.#scan(signal, async () => {
      const rows = await this.#readRows(names, maxReadableValueBytes);
      if (rows.length < names.length) {
        throw new TooLargeToRead(maxReadableValueBytes);
      }
      const reads = rows.map((row, index) => readAnswer(names[index], row));
      return { entries: reads.map(({ entry }) => entry), revision: lastOf(reads).revision };
    });
  }

  list(
    list: ListEntries,
    signal: AbortSignal,
  ): Promise<At & { readonly entries: readonly Entry[]; readonly more: boolean }> {
    return this.#scan(signal, () => this.#list(list));
  }

  async #list({ scope, namespace, range, ...list }: ListEntries) {
    type Row = EntryRow & { key: string | null; is_more: boolean };
    const rows = await this.#database.read<Row>(listEntries, [
      scope.kind,
      scope.id ?? null,
      namespace,
      range.from ?? null,
      range.fromIncluded,
      range.before ?? null,
      list.reverse,
      list.keysOnly,
      list.pageSize,
      list.pageBytes,
    ]);
    const end = lastOf(rows);
    const entries = rows.flatMap((row) =>
      row.key === null ? [] : [entryOf({ scope, namespace, key: row.key }, row)],
    );
    return { entries, more: end.is_more, revision: end.revision as Revision };
  }

  async deleteRange(): Promise<never> {
    throw new Error("being written");
  }

  async listScopes(): Promise<never> {
    throw new Error("being written");
  }

  /** Runs what reads more than single entries, beside the lanes of those. */
  async #scan<Result>(signal: AbortSignal, scan: () => Promise<Result>): Promise<Result> {
    const { result } = await this.#scans.submit(scan, signal);
    // It is what this very scan resolved to.
    return result as Result;
  }

  async #read(names: readonly EntryName[]): Promise<(Read | undefined)[]> {
    // The database leaves out what comes after many bytes: those calls go into the next batch.
    const rows = await this.#readRows(names, maxReadBytes);
    return rows.map((row, index) => readAnswer(names[index], row));
  }

  #readRows(names: readonly EntryName[], maxBytes: number): Promise<ReadRow[]> {
    return this.#database.read<ReadRow>(readEntries, [
      names.map((name) => name.scope.kind),
      names.map((name) => name.scope.id ?? null),
      names.map((name) => name.namespace),
      names.map((name) => name.key),
      maxBytes,
    ]);
  }
}

const oneCall = { weight: 1, bytes: 0 };

/** A scan is a batch by itself. */
const scanWork: LaneWork<() => Promise<unknown>, { readonly result: unknown }> = {
  run: (scans) => Promise.all(scans.map(async (scan) => ({ result: await scan() }))),
  cost: () => oneCall,
  remedy: () => "fail",
};

function remedyOf(error: unknown): "one_by_one" | "fail" {
  return error instanceof StateError && error.isOneCallsFault ? "one_by_one" : "fail";
}

function readAnswer(name: EntryName | undefined, row: ReadRow): Read {
  const { revision, plugin_revision: pluginRevision } = row;
  const isThere = name !== undefined && revision !== null;
  const entry = isThere ? entryOf(name, { ...row, revision }) : undefined;
  return { entry, revision: pluginRevision as Revision };
}

function entryOf(name: EntryName, row: EntryRow): Entry {
  return {
    ...name,
    valueJson: row.value ?? undefined,
    revision: row.revision as Revision,
    createdUs: row.created_us ?? undefined,
    updatedUs: row.updated_us ?? undefined,
    expiresUs: row.expires_us ?? undefined,
  };
}

function lastOf<T>(items: readonly T[]): T {
  const last = items.at(-1);
  if (last === undefined) {
    throw new Error("the database answered no rows");
  }
  return last;
}
