import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../log.ts";
import type { Pool } from "./pool.ts";
import { checkWritable } from "./statements.ts";

/** How often a database that answers is asked. */
const upIntervalMs = 1_000;
/** How often a database that doesn't is asked, plus up to half as much again at random. */
const downIntervalMs = 400;
/** A database that hasn't answered after this is taken for away. */
const answerMs = 1_000;

/** Asks the database again and again whether it serves, and tells when that changes. */
export class Monitor {
  readonly #pool: Pool;
  readonly #log: Log;
  readonly #onChange: (up: boolean) => void;
  readonly #stopped = new AbortController();
  #up = false;
  #loop: Promise<void> | undefined;
  /** Ends the current pause between two questions. */
  #hurry: () => void = () => undefined;

  /** @param onChange Called with true when the database serves, with false when it stops to. */
  constructor(pool: Pool, log: Log, onChange: (up: boolean) => void) {
    this.#pool = pool;
    this.#log = log;
    this.#onChange = onChange;
  }

  /** Asks for the first time, and goes on. */
  async start(): Promise<void> {
    this.#note(await this.#check());
    this.#loop ??= this.#ask();
  }

  /** Asks at once: somebody's connection failed. */
  suspect(): void {
    if (this.#up) {
      this.#hurry();
    }
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
  }

  async #ask(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await this.#pause();
      const error = await this.#check();
      if (!this.#stopped.signal.aborted) {
        this.#note(error);
      }
    }
  }

  /** Undefined when the database takes writes, and the reason when not. */
  async #check(): Promise<unknown> {
    const late = new AbortController();
    const answer = this.#pool.run<{ writable: boolean }>(checkWritable, []).then(
      ([row]) => (row?.writable === true ? undefined : new Error("the database is read-only")),
      (error: unknown) => error,
    );
    const timeout = sleep(answerMs, new Error(`no answer in ${answerMs} ms`), {
      signal: late.signal,
    }).catch(() => undefined);
    try {
      return await Promise.race([answer, timeout]);
    } finally {
      late.abort();
    }
  }

  #note(error: unknown): void {
    const up = error === undefined;
    if (up === this.#up) {
      return;
    }
    this.#up = up;
    if (up) {
      this.#log.info("the database serves");
    } else {
      this.#log.warn({ err: error }, "the database doesn't serve");
    }
    this.#onChange(up);
  }

  async #pause(): Promise<void> {
    const ms = this.#up ? upIntervalMs : downIntervalMs * (1 + Math.random() / 2);
    const hurry = new AbortController();
    this.#hurry = () => hurry.abort();
    const signal = AbortSignal.any([this.#stopped.signal, hurry.signal]);
    await sleep(ms, undefined, { signal }).catch(() => undefined);
  }
}
