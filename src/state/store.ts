import type { Entry, EntryName, Revision } from "./entry.ts";
import type { ListEntries, Write, WriteOutcome } from "./requests.ts";

/** What an answer carries beside its content: the plugin's revision at that moment. */
export interface At {
  readonly revision: Revision;
}

/**
 * The state of one plugin. There is one store for each binding, made with the plugin it serves, so
 * that no method has a way to name another.
 *
 * Promises of every method:
 * - Reads see every write that was acknowledged before they began; writes are ordered, and their
 *   revisions are in that order.
 * - A write is answered after PostgreSQL has committed it.
 * - When `signal` aborts before the work was sent to the database, it is dropped and the promise
 *   rejects with the signal's reason. After that it runs to its end and the answer is lost: the
 *   caller no longer listens.
 * - Rejects with {@link PluginNotRegistered} when the plugin is gone from the registry; with
 *   {@link DatabaseUnavailable} when the database can't be reached and nothing was written, which
 *   may be retried; with {@link Overloaded} when too many calls wait, which may be retried later.
 */
export interface Store {
  /** Reads one entry; undefined when there is none. */
  get(name: EntryName, signal: AbortSignal): Promise<At & { readonly entry: Entry | undefined }>;

  /**
   * Makes one change. An unconditional one always succeeds. Deleting what isn't there is no change
   * and takes no revision.
   *
   * Rejects with {@link OutcomeUnknown} when the connection broke so late that the write may have
   * happened: retrying is safe only if doing it twice is.
   */
  write(write: Write, signal: AbortSignal): Promise<WriteOutcome>;

  /**
   * Reads a page in one snapshot. `more` says whether the range had entries beyond it.
   */
  list(
    list: ListEntries,
    signal: AbortSignal,
  ): Promise<At & { readonly entries: readonly Entry[]; readonly more: boolean }>;
}
