// @ts-check

/** Where the rows are that are read and written without the sidecar. */
export const SQL_PLACE = { scopeKind: "project", scopeId: "bench-sql", namespace: "bench" };
