import type { Entry, EntryName, Revision } from "../state/entry.ts";
import { InvalidValue, PluginNotRegistered, TooLargeToRead } from "../state/errors.ts";
import type { ListEntries, Write, WriteOutcome } from "../state/requests.ts";
import type { At, Store } from "../state/store.ts";
import { pause } from "./backoff.ts";
import { isConflict, readError, writeError } from "./errors.ts";
import { Lane, type LaneLimits } from "./lane.ts";
import type { Pool } from "./pool.ts";
import { listEntries, readEntries, type Statement, writeEntries } from "./statements.ts";

/** What a store needs beside its pool. */
export interface StoreOptions {
  readonly pool: Pool;
  /** The plugin whose state it is: its id in the registry. */
  readonly pluginId: string;
  /** Makes a counter of revisions for a plugin that has none; false when it isn't registered. */
  readonly addCounter: () => Promise<boolean>;
  readonly reads: LaneLimits;
  readonly writes: LaneLimits;
}

/** How often a statement is sent again after another transaction was in its way. */
const conflictRetries = 20;
/** Bytes of values after which one statement of a batch of reads ends; the next goes on. */
const maxReadBytes = 8 * 1024 * 1024;

interface EntryRow {
  readonly value: string | null;
  readonly revision: bigint;
  readonly created_us: bigint | null;
  readonly updated_us: bigint | null;
}

/** One entry that was asked for; its own columns are null when there is none. */
interface ReadRow extends Omit<EntryRow, "revision"> {
  readonly revision: bigint | null;
  readonly plugin_revision: bigint;
}

/** The state of one plugin in PostgreSQL. */
export class PostgresStore implements Store {
  readonly #options: StoreOptions;
  readonly #reads: Lane<EntryName, At & { readonly entry: Entry | undefined }>;
  readonly #writes: Lane<Write, WriteOutcome>;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#reads = new Lane((names) => this.#read(names), isOneCallsFault, options.reads);
    this.#writes = new Lane((writes) => this.#apply(writes), isOneCallsFault, options.writes);
  }

  get(name: EntryName, signal: AbortSignal): Promise<At & { readonly entry: Entry | undefined }> {
    return this.#reads.submit(name, 0, signal);
  }

  write(write: Write, signal: AbortSignal): Promise<WriteOutcome> {
    const bytes = write.kind === "set" ? write.valueJson.length : 0;
    return this.#writes.submit(write, bytes, signal);
  }

  async list(
    list: ListEntries,
    signal: AbortSignal,
  ): Promise<At & { readonly entries: readonly Entry[]; readonly more: boolean }> {
    signal.throwIfAborted();
    const { scope, namespace, range } = list;
    const rows = await this.#readRows<EntryRow & { key: string | null; is_more: boolean }>(
      listEntries,
      [
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
      ],
    );
    const end = lastOf(rows);
    const entries = rows.flatMap((row) =>
      row.key === null ? [] : [entryOf({ scope, namespace, key: row.key }, row)],
    );
    return { entries, more: end.is_more, revision: end.revision as Revision };
  }

  async #read(names: readonly EntryName[]): Promise<(At & { entry: Entry | undefined })[]> {
    const answers: (At & { entry: Entry | undefined })[] = [];
    // The database leaves out what comes after many bytes; in order, so that it is asked again from there.
    while (answers.length < names.length) {
      const rest = names.slice(answers.length);
      const rows = await this.#readRows<ReadRow>(readEntries, [...nameColumns(rest), maxReadBytes]);
      for (const [index, row] of rows.entries()) {
        answers.push(readAnswer(rest[index], row));
      }
    }
    return answers;
  }

  async #apply(writes: readonly Write[]): Promise<WriteOutcome[]> {
    const values = writes.map((write) => (write.kind === "set" ? write.valueJson : "null"));
    const names = writes.map((write) => write.name);
    const rows = await this.#writeRows<{ ord: number; existed: boolean; revision: bigint }>([
      rounds(names),
      writes.map((write) => write.kind === "delete"),
      ...nameColumns(names),
      // Each is JSON text by itself: joined, nothing needs escaping, and PostgreSQL parses it once.
      `[${values.join(",")}]`,
    ]);
    const outcomes: WriteOutcome[] = [];
    for (const { ord, existed, revision } of rows) {
      outcomes[ord - 1] = { existed, revision: revision as Revision };
    }
    return outcomes;
  }

  async #readRows<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    try {
      return await this.#rows<Row>(statement, values);
    } catch (error) {
      throw readError(error, this.#options.pluginId);
    }
  }

  async #writeRows<Row>(values: readonly unknown[]): Promise<Row[]> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#rows<Row>(writeEntries, values);
      } catch (error) {
        if (!isConflict(error) || attempt >= conflictRetries) {
          throw writeError(error, this.#options.pluginId);
        }
        await pause(attempt);
      }
    }
  }

  /** The rows of a statement on this plugin. None at all means that it has no counter. */
  async #rows<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const { pool, pluginId, addCounter } = this.#options;
    const rows = await pool.run<Row>(statement, [pluginId, ...values]);
    if (rows.length > 0) {
      return rows;
    }
    if (!(await addCounter())) {
      throw new PluginNotRegistered(pluginId);
    }
    return await pool.run<Row>(statement, [pluginId, ...values]);
  }
}

function readAnswer(name: EntryName | undefined, row: ReadRow): At & { entry: Entry | undefined } {
  const { revision, plugin_revision: pluginRevision } = row;
  const isThere = name !== undefined && revision !== null;
  const entry = isThere ? entryOf(name, { ...row, revision }) : undefined;
  return { entry, revision: pluginRevision as Revision };
}

function isOneCallsFault(error: unknown): boolean {
  return error instanceof InvalidValue || error instanceof TooLargeToRead;
}

function nameColumns(names: readonly EntryName[]): unknown[] {
  return [
    names.map((name) => name.scope.kind),
    names.map((name) => name.scope.id ?? null),
    names.map((name) => name.namespace),
    names.map((name) => name.key),
  ];
}

/** For each write of a batch, how many before it have the same name. */
function rounds(names: readonly EntryName[]): number[] {
  const seen = new Map<string, number>();
  return names.map(({ scope, namespace, key }) => {
    const name = `${scope.kind}\0${scope.id ?? ""}\0${namespace}\0${key}`;
    const round = seen.get(name) ?? 0;
    seen.set(name, round + 1);
    return round;
  });
}

function entryOf(name: EntryName, row: EntryRow): Entry {
  return {
    ...name,
    valueJson: row.value ?? undefined,
    revision: row.revision as Revision,
    createdUs: row.created_us ?? undefined,
    updatedUs: row.updated_us ?? undefined,
  };
}

function lastOf<T>(items: readonly T[]): T {
  const last = items.at(-1);
  if (last === undefined) {
    throw new Error("the database answered no rows");
  }
  return last;
}
