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
 * Bytes of UTF-8 in a value that is read. Larger than any that can be set; migrations/0003 has the
 * same number.
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
