import type { Cancellation } from "../state/cancellation.ts";
import type { EntryName } from "../state/entry.ts";
import type { StateBounds } from "../state/limits.ts";
import type {
  DeleteRange,
  ListEntries,
  ListScopes,
  ScopeSummary,
  Write,
  WriteOutcome,
} from "../state/requests.ts";
import type { At, Page, Store } from "../state/store.ts";
import { ReadLost } from "./errors.ts";
import { Lane, type LaneLimits, type LaneWork } from "./lane.ts";
import { PluginDatabase } from "./plugin-database.ts";
import type { Pool } from "./pool.ts";
import { type DeleteRangeOutcome, RangeDeleter } from "./range-deleter.ts";
import { type ListRow, pageOf } from "./read-rows.ts";
import { type Read, type ReadAll, Reader } from "./reader.ts";
import { readScopes } from "./scopes.ts";
import { listEntries } from "./statements.ts";
import { Writer } from "./writer.ts";

/** What a store needs beside its pool. */
export interface StoreOptions {
  readonly pool: Pool;
  /** The plugin whose state it is: its id in the registry. */
  readonly pluginId: string;
  readonly reads: LaneLimits;
  readonly writes: LaneLimits;
  /** Of everything that reads more than single entries. */
  readonly scans: LaneLimits;
  readonly bounds: StateBounds;
  /** How long to ask for the outcome of a write whose connection broke, in milliseconds. */
  readonly settleMs: number;
}

/** The state of one plugin in PostgreSQL. */
export class PostgresStore implements Store {
  readonly #database: PluginDatabase;
  readonly #reader: Reader;
  readonly #scans: Lane<() => Promise<unknown>, { readonly result: unknown }>;
  readonly #writer: Writer;
  readonly #rangeDeleter: RangeDeleter;

  constructor(options: StoreOptions) {
    const { pool, pluginId, settleMs, bounds } = options;
    this.#database = new PluginDatabase(pool, pluginId);
    this.#reader = new Reader(this.#database, options.reads);
    this.#scans = new Lane(scanWork, options.scans);
    this.#writer = new Writer(this.#database, { limits: options.writes, bounds, settleMs });
    this.#rangeDeleter = new RangeDeleter(this.#database, {
      inTurn: (signal, step) => this.#scan(signal, step),
      rememberMs: bounds.rememberRequestsMs,
      settleMs,
    });
  }

  get(name: EntryName, signal: Cancellation): Promise<Read> {
    return this.#reader.get(name, signal);
  }

  write(write: Write, signal: Cancellation): Promise<WriteOutcome> {
    return this.#writer.write(write, signal);
  }

  async batchGet(names: readonly EntryName[], signal: Cancellation): Promise<ReadAll> {
    const shared = await this.#reader.getShared(names, signal);
    return shared ?? (await this.#scan(signal, () => this.#reader.readAll(names)));
  }

  list(list: ListEntries, signal: Cancellation): Promise<Page> {
    return this.#scan(signal, () => this.#list(list));
  }

  async #list({ scope, namespace, range, ...list }: ListEntries) {
    const rows = await this.#database.read<ListRow>(listEntries, [
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
    return pageOf({ scope, namespace }, rows);
  }

  deleteRange(range: DeleteRange, signal: Cancellation): Promise<DeleteRangeOutcome> {
    return this.#rangeDeleter.delete(range, signal);
  }

  listScopes(
    list: ListScopes,
    signal: Cancellation,
  ): Promise<At & { readonly scopes: readonly ScopeSummary[]; readonly more: boolean }> {
    return this.#scan(signal, () => readScopes(this.#database, list));
  }

  /** Runs what reads more than single entries, beside the lanes of those. */
  async #scan<Result>(signal: Cancellation, scan: () => Promise<Result>): Promise<Result> {
    const { result } = await this.#scans.submit(scan, signal);
    // It is what this very scan resolved to.
    return result as Result;
  }
}

const oneCall = { weight: 1, bytes: 0 };

/** A scan is a batch by itself. */
const scanWork: LaneWork<() => Promise<unknown>, { readonly result: unknown }> = {
  run: (scans) => Promise.all(scans.map(async (scan) => ({ result: await scan() }))),
  cost: () => oneCall,
  remedy: (error) => (error instanceof ReadLost ? "again" : "fail"),
};
