import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../log.ts";
import type { Pool } from "./pool.ts";
import {
  forgetPlugin,
  nextPluginToSweep,
  type Statement,
  sweep,
  sweepAnswers,
  sweepExternalWrites,
} from "./statements.ts";

/** What a sweeper is given. */
export interface SweeperOptions {
  readonly pool: Pool;
  readonly log: Log;
  /** The plugins this process serves; asked before each round of sweeps. */
  readonly pluginIds: () => readonly string[];
  /** Between two looks, give or take a quarter at random, in milliseconds. */
  readonly intervalMs: number;
  /** Told what a step removed, by the statement that did. */
  readonly onRemoved?: ((statement: string, rows: number) => void) | undefined;
}

/** Rows that one step removes, at most: 4 to 9 ms, for which writes wait (1,000: 7 to 15 ms). */
const maxStepRows = 500;

/** Before all others in the order of ids. */
const noPlugin = "00000000-0000-0000-0000-000000000000";
/** Plugins that may be served by nobody, and are looked after in one round. */
const maxOthers = 100;

/** One kind of thing that is removed, step by step. */
interface Task {
  readonly statement: Statement;
  readonly values: readonly unknown[];
}

/**
 * Removes what nobody sees any more: entries whose time is over, and remembered answers. A step at a
 * time, on one connection; of several sidecars one does it, and each of the others is ready to.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #stopped = new AbortController();
  #loop: Promise<void> | undefined;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /** Begins, with a pause. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /** Ends, after the step that is under way. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (await this.#pause()) {
      let tasks = await this.#tasks();
      // Round by round, so that a plugin with much to remove doesn't hold up the others.
      while (tasks.length > 0) {
        tasks = await this.#round(tasks);
      }
    }
  }

  async #tasks(): Promise<Task[]> {
    const served = this.#options.pluginIds();
    const others = await this.#others();
    return [
      ...served.flatMap((id) => [
        { statement: sweep, values: [id, maxStepRows] },
        { statement: sweepAnswers, values: [id, maxStepRows] },
        { statement: sweepExternalWrites, values: [id] },
      ]),
      ...others.flatMap((id) => [
        { statement: sweepExternalWrites, values: [id] },
        { statement: forgetPlugin, values: [id, maxStepRows] },
      ]),
    ];
  }

  /** Plugins whose external writes wait for revisions though nobody may serve them, or that are gone. */
  async #others(): Promise<string[]> {
    const others: string[] = [];
    let after = noPlugin;
    while (!this.#stopped.signal.aborted && others.length < maxOthers) {
      const id = await this.#nextAfter(after);
      if (id === undefined) break;
      others.push(id);
      after = id;
    }
    return others;
  }

  async #nextAfter(after: string): Promise<string | undefined> {
    const { pool, log } = this.#options;
    try {
      const [row] = await pool.run<{ id: string | null }>(nextPluginToSweep, [after]);
      return row?.id ?? undefined;
    } catch (error) {
      log.debug({ err: error }, "could not look for plugins to sweep");
      return undefined;
    }
  }

  /** Does a step of each, and says which of them have more to do. */
  async #round(tasks: readonly Task[]): Promise<Task[]> {
    const unfinished: Task[] = [];
    for (const task of tasks) {
      if (!this.#stopped.signal.aborted && (await this.#hasMore(task))) {
        unfinished.push(task);
      }
    }
    return unfinished;
  }

  async #hasMore({ statement, values }: Task): Promise<boolean> {
    const { pool, log, onRemoved } = this.#options;
    try {
      const [row] = await pool.run<{ removed: bigint; more: boolean }>(statement, values);
      onRemoved?.(statement.name, Number(row?.removed ?? 0n));
      return row?.more === true;
    } catch (error) {
      // The database is away, or somebody holds the counter for long: the next time will do.
      log.debug({ err: error, statement: statement.name }, "could not sweep");
      return false;
    }
  }

  /** False when the sweeper was stopped. */
  async #pause(): Promise<boolean> {
    const ms = this.#options.intervalMs * (0.75 + Math.random() / 2);
    const { signal } = this.#stopped;
    await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
    return !signal.aborted;
  }
}
