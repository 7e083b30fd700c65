import type { EntryName, Revision, Scope } from "./entry.ts";

/** Requests that can't be invalid: whoever holds one need check nothing again. */

/** Writes one entry whole. */
export interface SetEntry {
  readonly kind: "set";
  readonly name: EntryName;
  /** JSON text that jsonb keeps exactly. */
  readonly valueJson: string;
}

/** Removes one entry. */
export interface DeleteEntry {
  readonly kind: "delete";
  readonly name: EntryName;
}

/** One change to one entry. */
export type Write = SetEntry | DeleteEntry;

/** What a write did. */
export interface WriteOutcome {
  /** Whether the entry was there before. */
  readonly existed: boolean;
  /** The write's own revision; for a delete that found nothing, the plugin's at that moment. */
  readonly revision: Revision;
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
