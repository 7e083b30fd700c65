import type { Entry, EntryName, Revision, Scope, ScopeKind } from "./entry.ts";

/** Requests that can't be invalid: whoever holds one need check nothing again. */

/** What must hold of an entry at the moment of a write. */
export type Condition =
  | { readonly kind: "present" }
  | { readonly kind: "absent" }
  | { readonly kind: "revision"; readonly revision: Revision };

/** How long an entry is to live. */
export interface Expiry {
  /** Microseconds from the write; undefined for no end. */
  readonly ttlUs: bigint | undefined;
  /** Whether an end that the entry has already stays. */
  readonly keep: boolean;
}

/** Writes one entry whole. */
export interface SetEntry {
  readonly kind: "set";
  readonly name: EntryName;
  readonly condition: Condition | undefined;
  /** JSON text that jsonb keeps exactly. */
  readonly valueJson: string;
  readonly expiry: Expiry;
  readonly returnPrevious: boolean;
}

/** Removes one entry. */
export interface DeleteEntry {
  readonly kind: "delete";
  readonly name: EntryName;
  readonly condition: Condition | undefined;
  readonly returnPrevious: boolean;
}

/** Changes one entry's value where it is kept. */
export interface UpdateEntry {
  readonly kind: "increment" | "merge_patch" | "append";
  readonly name: EntryName;
  readonly condition: Condition | undefined;
  /**
   * The change as JSON text: for `increment` an object with `by` and, each if it is wanted, `initial`,
   * `min`, `max` and `clamp`; for `append` one with `item` and, if wanted, `max_length` and `unique`;
   * for `merge_patch` the patch.
   */
  readonly argumentJson: string;
  readonly expiry: Expiry;
  readonly returnPrevious: boolean;
}

/** Changes nothing, but something must hold. */
export interface CheckEntry {
  readonly kind: "check";
  readonly name: EntryName;
  readonly condition: Condition;
}

/** One change to one entry. */
export type Operation = SetEntry | DeleteEntry | UpdateEntry;

/** A request's own name, by which a repetition is known. */
export interface RequestId {
  /** A UUID. */
  readonly id: string;
  /** A digest of the request: another one under the same id has another. */
  readonly fingerprint: string;
}

/** What is written together: all of it or nothing. At least one check or operation. */
export interface Write {
  readonly checks: readonly CheckEntry[];
  readonly operations: readonly Operation[];
  readonly requestId: RequestId | undefined;
}

/** What became of a write. */
export type WriteOutcome = Done | NotDone | OverQuota | RequestIdReused;

/** Everything was done. */
export interface Done {
  readonly kind: "done";
  /** One for each operation, in order. */
  readonly results: readonly OperationResult[];
  /** The plugin's revision after it. */
  readonly revision: Revision;
}

/** What one operation did. */
export interface OperationResult {
  /** Whether the entry was there before. */
  readonly existed: boolean;
  /** Whether the operation changed anything: not a delete of nothing, nor a unique append of what is there. */
  readonly changed: boolean;
  /** The operation's own revision; of one that changed nothing the plugin's at that moment. */
  readonly revision: Revision;
  /** The new value of an update, as JSON text. */
  readonly valueJson: string | undefined;
  /** The entry before, if it was asked for and was there. */
  readonly previous: Entry | undefined;
}

/** Nothing was done, because of these parts. */
export interface NotDone {
  readonly kind: "not_done";
  readonly failures: readonly Failure[];
}

/** Why one part of a write failed. */
export interface Failure {
  /** The part's index among the write's checks or operations. */
  readonly part: "check" | "operation";
  readonly index: number;
  readonly reason: "condition" | "wrong_type" | "out_of_bounds" | "too_large";
  /** The condition that was lost. */
  readonly condition: Condition | undefined;
  /** The entry's revision; undefined when there is no such entry. */
  readonly current: Revision | undefined;
  /** Bytes the result, or all that the write answers, would have, and may have. */
  readonly tooLarge: { readonly size: number; readonly limit: number } | undefined;
}

/** Nothing was done: the plugin would have more than it may. */
export interface OverQuota {
  readonly kind: "over_quota";
  readonly quota: "entries" | "bytes";
  readonly used: bigint;
  readonly asked: bigint;
}

/** Nothing was done: the request id belongs to another request. */
export interface RequestIdReused {
  readonly kind: "request_id_reused";
}

/** A page of one scope and namespace, in byte order of keys. */
export interface ListEntries {
  readonly scope: Scope;
  readonly namespace: string;
  readonly range: KeyRange;
  readonly reverse: boolean;
  readonly keysOnly: boolean;
  /** Entries, at most. */
  readonly pageSize: number;
  /** Bytes of scope ids, namespaces, keys and values, at most; one entry is always allowed. */
  readonly pageBytes: number;
}

/** A range of keys, compared as bytes of UTF-8. */
export interface KeyRange {
  /** The first key or, if `fromIncluded` is false, the one before it; undefined: from the start. */
  readonly from: string | undefined;
  readonly fromIncluded: boolean;
  /** The key after the last; undefined: to the end. */
  readonly before: string | undefined;
}

/** Removes the entries of one scope and namespace in a range of keys. */
export interface DeleteRange {
  readonly scope: Scope;
  readonly namespace: string;
  readonly range: KeyRange;
  readonly requestId: RequestId | undefined;
}

/** A page of the places where a plugin keeps entries. */
export interface ListScopes {
  /** Only scopes of this kind. */
  readonly kind: ScopeKind | undefined;
  /** Only places after this one; undefined: from the first. */
  readonly after: ScopePlace | undefined;
  /** Places, at most. */
  readonly pageSize: number;
}

/** One namespace of one scope. */
export interface ScopePlace {
  readonly scope: Scope;
  readonly namespace: string;
}

/** What one namespace of one scope holds. */
export interface ScopeSummary extends ScopePlace {
  readonly entries: bigint;
  /** Bytes of UTF-8 of scope id, namespace, key and value of each. */
  readonly bytes: bigint;
}
