import { setTimeout as sleep } from "node:timers/promises";

/** Something that is waited for, but not for ever. */
export class Patience {
  /** Settles when it has come, or was waited for long enough. */
  readonly over: Promise<void>;
  /** It has come. */
  end: () => void = () => undefined;

  /** @param ms For how long, from now on. Doesn't keep the process running. */
  constructor(ms: number) {
    const ended = new Promise<void>((resolve) => {
      this.end = resolve;
    });
    this.over = Promise.race([ended, sleep(ms, undefined, { ref: false })]);
  }
}

/**
 * What `work` comes to, unless the signal aborts before: then its reason, at once. For work that can't be
 * told to end; what it comes to later is dropped.
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
  });
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
