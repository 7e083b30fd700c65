import type { Cancellation } from "./cancellation.ts";
import type { Entry, EntryName, Revision } from "./entry.ts";
import type {
  DeleteRange,
  ListEntries,
  ListScopes,
  RequestIdReused,
  ScopeSummary,
  Write,
  WriteOutcome,
} from "./requests.ts";

/** What an answer carries beside its content: the plugin's revision at that moment. */
export interface At {
  readonly revision: Revision;
}

/** Some of the entries of a range. */
export interface Page extends At {
  readonly entries: readonly Entry[];
  /** Whether the range has entries beyond them. */
  readonly more: boolean;
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
  get(name: EntryName, signal: Cancellation): Promise<At & { readonly entry: Entry | undefined }>;

  /** Reads entries in one snapshot, in the order of their names. */
  batchGet(
    names: readonly EntryName[],
    signal: Cancellation,
  ): Promise<At & { readonly entries: readonly (Entry | undefined)[] }>;

  /**
   * Does all of a write's operations, in order, or none: none if a check or condition doesn't hold, if
   * a change doesn't go with the value, or if the plugin would exceed its quota. That is an outcome,
   * not a rejection. Deleting what isn't there is no change and takes no revision.
   *
   * With a request id that was used before, does nothing and answers what was answered then.
   *
   * A connection that breaks on the way doesn't matter, as long as the database comes back in time: the
   * store finds out what happened and, if nothing did, sends the write again. Rejects with
   * {@link OutcomeUnknown} when it doesn't come back: the write may have happened.
   */
  write(write: Write, signal: Cancellation): Promise<WriteOutcome>;

  /**
   * Removes a range of entries, in batches that are transactions of their own, and says how many. A
   * rejection, also by `signal`, leaves what was removed so.
   */
  deleteRange(
    range: DeleteRange,
    signal: Cancellation,
  ): Promise<(At & { readonly kind: "done"; readonly deleted: bigint }) | RequestIdReused>;

  /** Reads a page of the places that hold entries, in the order of kind, scope id and namespace. */
  listScopes(
    list: ListScopes,
    signal: Cancellation,
  ): Promise<At & { readonly scopes: readonly ScopeSummary[]; readonly more: boolean }>;

  /** Reads a page in one snapshot. */
  list(list: ListEntries, signal: Cancellation): Promise<Page>;
}
