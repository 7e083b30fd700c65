import type { Link } from "@opentelemetry/api";

/** A batch that serves several calls. */
export interface Batch {
  readonly calls: number;
  /** To the spans of those calls that are sampled. */
  readonly links: readonly Link[];
}

/** Under which a context holds its {@link Batch}. */
export const batchKey = Symbol("plugin-state batch");
