// @ts-check
// The parent's side of worker.js.

import { Child } from "./child.js";

/** @import { LoadResult, LoadSpec } from "./worker.js" */

const WORKER = new URL("worker.js", import.meta.url);

/** What a worker may take beyond the time of its runs: start, making payloads, waiting for replies. */
const MARGIN_MS = 30_000;

/**
 * Runs a load in a process of its own. Rejects if that fails or takes too long; what the server does
 * wrong is in the result's `errors`.
 * @param {LoadSpec} spec
 * @returns {Promise<LoadResult>}
 */
export async function generateLoad(spec) {
  const worker = new Child(WORKER, [JSON.stringify(spec)]);
  const runsMs = (spec.seconds + (spec.warmupSeconds ?? 0)) * 1_000;
  try {
    const line = await worker.firstLine(runsMs + MARGIN_MS);
    return /** @type {LoadResult} */ (line); // worker.js prints nothing else
  } finally {
    await worker.stop();
  }
}
