import { randomUUID } from "node:crypto";
import type { Cancellation } from "../state/cancellation.ts";
import { DatabaseUnavailable, OutcomeUnknown, StateError } from "../state/errors.ts";
import type { StateBounds } from "../state/limits.ts";
import type { Write, WriteOutcome } from "../state/requests.ts";
import { pause } from "./backoff.ts";
import { isConflict, isOutcomeUnknown, isTimeout, writeError } from "./errors.ts";
import { Lane, type LaneLimits, type LaneWork, type Remedy } from "./lane.ts";
import type { PluginDatabase } from "./plugin-database.ts";
import { settleBatch } from "./statements.ts";
import { type AnswerRow, batchOutcomes } from "./write-answers.ts";
import { batchOf, partCount, sizeOf } from "./write-batch.ts";

/** What a writer needs beside its database. */
export interface WriterOptions {
  readonly limits: LaneLimits;
  readonly bounds: StateBounds;
  /** How long to ask for the outcome of a batch whose connection broke, in milliseconds. */
  readonly settleMs: number;
}

/**
 * The name under which a batch is known in the database. Each has its number from one of as many
 * series as there are batches under way at once.
 */
interface Series {
  readonly id: string;
  batch: bigint;
}

/** The connection broke, and the batch wasn't done, nor will it be. */
class BatchLost extends DatabaseUnavailable {}

/** The batch took too long, was given up, and will never be done. */
class BatchLate extends DatabaseUnavailable {}

/** Writes the entries of one plugin, a batch of concurrent calls in one statement. */
export class Writer {
  readonly #database: PluginDatabase;
  readonly #options: WriterOptions;
  readonly #lane: Lane<Write, WriteOutcome>;
  readonly #idle: Series[] = [];

  constructor(database: PluginDatabase, options: WriterOptions) {
    this.#database = database;
    this.#options = options;
    const run: Run = (writes, makeRoom) => this.#apply(writes, makeRoom);
    this.#lane = new Lane({ run, cost, remedy }, options.limits);
  }

  /** See {@link Store.write}. */
  async write(write: Write, signal: Cancellation): Promise<WriteOutcome> {
    try {
      return await this.#lane.submit(write, signal);
    } catch (error) {
      // The lane gave up on a conflict.
      throw isConflict(error) ? writeError(error, this.#database.pluginId) : error;
    }
  }

  async #apply(
    writes: readonly Write[],
    makeRoom: () => void,
  ): Promise<(WriteOutcome | undefined)[]> {
    const series = this.#idle.pop() ?? { id: randomUUID(), batch: 0n };
    series.batch += 1n;
    try {
      return batchOutcomes(writes, await this.#send(writes, series, makeRoom));
    } finally {
      this.#idle.push(series);
    }
  }

  async #send(
    writes: readonly Write[],
    { id, batch }: Series,
    makeRoom: () => void,
  ): Promise<AnswerRow[]> {
    const { statement, parameters } = batchOf(writes, this.#options.bounds);
    try {
      return await this.#database.rows<AnswerRow>(statement, [id, batch, ...parameters]);
    } catch (error) {
      if (isOutcomeUnknown(error)) {
        // Those that wait weren't sent yet: they needn't share the doubt, nor wait for its end.
        makeRoom();
        return await this.#settle(id, batch, error);
      }
      throw isConflict(error) ? error : writeError(error, this.#database.pluginId);
    }
  }

  /**
   * Finds out what became of a batch: the answer that was lost, or {@link BatchLost}, or
   * {@link BatchLate}. Whether it was done is decided by this question, if by nothing else: a batch
   * that is still on its way finds that it was given up.
   */
  async #settle(id: string, batch: bigint, cause: unknown): Promise<AnswerRow[]> {
    const endsAt = performance.now() + this.#options.settleMs;
    for (let attempt = 0; ; attempt++) {
      try {
        const rows = await this.#database.rowsIfAny<AnswerRow>(settleBatch, [id, batch]);
        if (rows[0]?.outcomes) {
          return rows;
        }
        throw isTimeout(cause) ? new BatchLate({ cause }) : new BatchLost({ cause });
      } catch (error) {
        if (error instanceof BatchLost || error instanceof BatchLate) {
          throw error;
        }
        if (performance.now() >= endsAt) {
          throw new OutcomeUnknown({ cause });
        }
        await pause(attempt);
      }
    }
  }
}

type Run = LaneWork<Write, WriteOutcome>["run"];

function cost(write: Write) {
  return { weight: partCount(write), bytes: sizeOf(write) };
}

function remedy(error: unknown): Remedy {
  if (error instanceof BatchLost) {
    return "again";
  }
  if (isConflict(error)) {
    return "conflict";
  }
  return error instanceof StateError && error.isOneCallsFault ? "one_by_one" : "fail";
}
