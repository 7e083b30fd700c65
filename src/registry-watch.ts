import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "./log.ts";
import { Patience } from "./patience.ts";

/** Between two looks while every plugin is there: one small statement. */
const calmMs = 2_000;
/** While one is missing. */
const missingMs = 1_000;
/** Between two looks that calls asked for, however many calls do. */
const gapMs = 50;
/** How long a call waits for a look. */
const maxWaitMs = 5_000;

/** What a registry's watch is given. */
export interface RegistryWatchOptions {
  /** Looks which plugins are registered; rejects when nobody can tell. */
  readonly look: () => Promise<void>;
  /** Whether one was missing when it last looked. */
  readonly isMissing: () => boolean;
  readonly log: Log;
}

/**
 * Looks again and again which plugins the host's registry has: one that is removed and installed anew has the
 * same key and another id. One look at a time.
 */
export class RegistryWatch {
  readonly #options: RegistryWatchOptions;
  readonly #stopped = new AbortController();
  /** Who waits for a look. */
  readonly #waiting = new Set<Patience>();
  /** The look that is under way, or was last. Never rejects. */
  #running: Promise<void> = Promise.resolve();
  /** The one that hasn't begun yet. */
  #next: Promise<void> | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: RegistryWatchOptions) {
    this.#options = options;
  }

  /** Goes on looking until {@link stop}. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /**
   * Resolves after a look that began after this was called, or when that takes too long, or was stopped. All
   * who ask meanwhile share it.
   */
  now(): Promise<void> {
    if (this.#stopped.signal.aborted) return Promise.resolve();
    this.#next ??= this.#afterThis();
    return this.#next;
  }

  /** Ends it, and whoever waits waits no longer. */
  stop(): void {
    this.#stopped.abort();
    for (const patience of this.#waiting) patience.end();
  }

  #afterThis(): Promise<void> {
    const patience = new Patience(maxWaitMs);
    this.#waiting.add(patience);
    const looked = this.#running.then(() => {
      this.#next = undefined;
      return this.#look();
    });
    this.#running = looked.then(() => {
      patience.end();
      this.#waiting.delete(patience);
      return this.#sleep(gapMs);
    });
    return patience.over;
  }

  async #run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await this.#sleep(this.#options.isMissing() ? missingMs : calmMs);
      await this.now();
    }
  }

  async #look(): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    try {
      await this.#options.look();
    } catch (error) {
      this.#options.log.debug({ err: error }, "can't look which plugins are registered");
    }
  }

  /** Give or take a quarter, so that many sidecars don't ask at once. */
  async #sleep(ms: number): Promise<void> {
    const { signal } = this.#stopped;
    const about = ms * (0.75 + Math.random() / 2);
    await sleep(about, undefined, { signal, ref: false }).catch(() => undefined);
  }
}
