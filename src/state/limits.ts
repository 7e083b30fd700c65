/** Every bound on a request, in one place. GetServerInfo tells clients; the proto comments say why. */

/**
 * Bytes of UTF-8 in a key. Key, scope id and namespace share one row of the unique index, which
 * PostgreSQL bounds to 2,704 bytes: 1,024 + 256 + 256 and the plugin's id fit with room to spare.
 */
export const maxKeyBytes = 1024;

/** Bytes of UTF-8 in a scope id. */
export const maxScopeIdBytes = 256;

/** Bytes of UTF-8 in a namespace. */
export const maxNamespaceBytes = 256;

/** Bytes of UTF-8 in a value's JSON text, unless the sidecar was told another bound. */
export const defaultMaxValueBytes = 4 * 1024 * 1024;

/**
 * Bytes of UTF-8 in a value that is read. As large as the largest bound that can be set; migrations/0004
 * has the same number.
 */
export const maxReadableValueBytes = 64 * 1024 * 1024;

/**
 * Levels of arrays and objects in a value. PostgreSQL's own parser gives up at 13,000 (15) or 16,000
 * (18) with its default stack; many clients' parsers do at 1,000.
 */
export const maxValueDepth = 1000;

/** Entries in a page of List when the request doesn't say. */
export const defaultPageSize = 100;

/** Entries in a page of List; a larger request gets this many. */
export const maxPageSize = 1000;

/**
 * Bytes of scope ids, namespaces, keys and values in a page of List. With the framing of 1,000
 * entries a page stays under the 4 MiB that gRPC clients accept by default.
 */
export const maxPageBytes = 3 * 1024 * 1024;

/** Checks in a Transact; its operations are as many again. A batch of calls has as many operations. */
export const maxTransactChecks = 128;

/** Operations in a Transact. */
export const maxTransactOperations = 128;

/** Bytes of names and values in a Transact: what one batch of writes may have. */
export const maxTransactBytes = 8 * 1024 * 1024;

/** Names in a BatchGet. */
export const maxBatchGetNames = 128;

/** Levels of objects in a merge patch: PostgreSQL applies it by recursion, and 566 are too many for it. */
export const maxMergePatchDepth = 100;

/** The longest time to live: 100 years, in microseconds. */
export const maxTtlUs = 100n * 365n * 24n * 3600n * 1_000_000n;

/** The bounds that whoever starts the sidecar chooses. */
export interface StateBounds {
  /** Bytes of UTF-8 in a value's JSON text. */
  readonly maxValueBytes: number;
  /** How long a request id is remembered, in milliseconds. */
  readonly rememberRequestsMs: number;
  /** Entries a plugin may have; undefined: as many as it wants. */
  readonly quotaEntries: number | undefined;
  /** Bytes a plugin's entries may have together; undefined: as many as it wants. */
  readonly quotaBytes: number | undefined;
}
