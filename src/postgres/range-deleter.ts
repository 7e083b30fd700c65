import { randomUUID } from "node:crypto";
import type { Cancellation } from "../state/cancellation.ts";
import type { Revision } from "../state/entry.ts";
import { DatabaseUnavailable, OutcomeUnknown } from "../state/errors.ts";
import type { DeleteRange, RequestIdReused } from "../state/requests.ts";
import type { At } from "../state/store.ts";
import { pause } from "./backoff.ts";
import { isConflict, isOutcomeUnknown, writeError } from "./errors.ts";
import type { PluginDatabase } from "./plugin-database.ts";
import { deleteRange } from "./statements.ts";

/** What became of the removal of a range. */
export type DeleteRangeOutcome =
  | (At & { readonly kind: "done"; readonly deleted: bigint })
  | RequestIdReused;

/** What a range deleter needs beside its database. */
export interface RangeDeleterOptions {
  /** Runs one step when its turn has come; rejects with the signal's reason if that aborts before. */
  readonly inTurn: <Result>(signal: Cancellation, step: () => Promise<Result>) => Promise<Result>;
  /** How long a request id is remembered, in milliseconds. */
  readonly rememberMs: number;
  /** How long to ask again for a step whose connection broke, in milliseconds. */
  readonly settleMs: number;
}

/** Entries that one step removes, at most: 3 to 6 ms, for which other writes wait (1,000: 5 to 11 ms). */
const maxStepEntries = 500;
/** Bytes of entries after which a step ends, as values must be removed from TOAST too: 15 to 35 ms. */
const maxStepBytes = 8 * 1024 * 1024;
/** How often a step is sent again after another transaction was in its way. */
const conflictRetries = 20;
/** How much longer than it may be asked for an answer is remembered at least. */
const rememberMarginMs = 60_000;

const usPerMs = 1000;

interface StepRow {
  readonly is_reused: boolean;
  readonly deleted: bigint;
  readonly ended: boolean;
  readonly revision: bigint;
}

/** Removes ranges of one plugin's entries, step by step. */
export class RangeDeleter {
  readonly #database: PluginDatabase;
  readonly #options: RangeDeleterOptions;

  constructor(database: PluginDatabase, options: RangeDeleterOptions) {
    this.#database = database;
    this.#options = options;
  }

  /** See {@link Store.deleteRange}. */
  async delete(range: DeleteRange, signal: Cancellation): Promise<DeleteRangeOutcome> {
    const parameters = this.#parametersOf(range);
    for (let isFirst = true; ; isFirst = false) {
      const step = await this.#step(parameters, isFirst, signal);
      if (step.is_reused) {
        return { kind: "request_id_reused" };
      }
      if (step.ended) {
        return { kind: "done", deleted: step.deleted, revision: step.revision as Revision };
      }
    }
  }

  /** The same for every step: the database remembers how far they came, under the request's id. */
  #parametersOf({ scope, namespace, range, requestId }: DeleteRange): unknown[] {
    const { rememberMs, settleMs } = this.#options;
    const leastMs = settleMs + rememberMarginMs;
    // A request that has no id gets one, so that a step whose answer was lost can be asked for again.
    const { id, fingerprint } = requestId ?? { id: randomUUID(), fingerprint: "" };
    const ms = requestId === undefined ? leastMs : Math.max(rememberMs, leastMs);
    return [
      scope.kind,
      scope.id ?? null,
      namespace,
      range.from ?? null,
      range.before ?? null,
      maxStepEntries,
      maxStepBytes,
      id,
      fingerprint,
      BigInt(ms * usPerMs),
    ];
  }

  /**
   * Does one step, in its turn. Sends it again when another transaction was in its way, and when its
   * connection broke: whether it was done or not, the next one is then the right one.
   *
   * @param isFirst Then a database that can't be reached isn't waited for: nothing has happened yet.
   */
  async #step(
    parameters: readonly unknown[],
    isFirst: boolean,
    signal: Cancellation,
  ): Promise<StepRow> {
    let lostAt: number | undefined;
    let isInDoubt = false;
    let conflicts = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#options.inTurn(signal, () => this.#send(parameters));
      } catch (error) {
        signal.throwIfAborted();
        isInDoubt ||= isOutcomeUnknown(error);
        lostAt ??= isLost(error) ? performance.now() : undefined;
        conflicts += isConflict(error) ? 1 : 0;
        const mayPass = isConflict(error)
          ? conflicts <= conflictRetries
          : isLost(error) && (isInDoubt || !isFirst) && this.#isInTime(lostAt);
        if (!mayPass) {
          throw isInDoubt && isLost(error)
            ? new OutcomeUnknown({ cause: error })
            : writeError(error, this.#database.pluginId);
        }
      }
      await pauseUnlessAborted(attempt, signal);
    }
  }

  async #send(parameters: readonly unknown[]): Promise<StepRow> {
    const [row] = await this.#database.rows<StepRow>(deleteRange, parameters);
    if (row === undefined) {
      throw new Error("the database answered no rows");
    }
    return row;
  }

  #isInTime(lostAt: number | undefined): boolean {
    return lostAt === undefined || performance.now() < lostAt + this.#options.settleMs;
  }
}

/** Whether the connection broke, or there was none. */
function isLost(error: unknown): boolean {
  return error instanceof DatabaseUnavailable || isOutcomeUnknown(error);
}

async function pauseUnlessAborted(attempt: number, signal: Cancellation): Promise<void> {
  await pause(attempt);
  signal.throwIfAborted();
}
