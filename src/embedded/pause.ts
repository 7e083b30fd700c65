import type { EventEmitter } from "node:events";

/** How a pause may end early or let the process end. */
export interface PauseOptions {
  /** Ends the pause early on this emitter's `exit` event. */
  readonly wakeOnExitOf?: EventEmitter | undefined;
  /** `false`: the pause alone doesn't keep the process alive. */
  readonly ref?: boolean;
}

/**
 * Waits; rejects with the signal's reason when it aborts. Leaves no listener behind: the watch of
 * the server pauses every second for as long as the sidecar lives, where a `Promise.race` against
 * one long-lived promise would leak.
 */
export function pause(ms: number, signal?: AbortSignal, options: PauseOptions = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(done, ms);
    if (options.ref === false) timer.unref();
    signal?.addEventListener("abort", aborted, { once: true });
    options.wakeOnExitOf?.once("exit", done);

    function release(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
      options.wakeOnExitOf?.removeListener("exit", done);
    }
    function done(): void {
      release();
      resolve();
    }
    function aborted(): void {
      release();
      reject(signal?.reason);
    }
  });
}
