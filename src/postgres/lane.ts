import type { Cancellation } from "../state/cancellation.ts";
import { Overloaded } from "../state/errors.ts";
import { pause } from "./backoff.ts";
import type { LaneObserver, LaneTracer } from "./observer.ts";

/** How a lane gathers calls, and who watches it. */
export interface LaneLimits {
  /** The weight of one batch, at most (one call is always allowed). 1 turns gathering off. */
  readonly batchWeight: number;
  /** Bytes in one batch, at most (one call is always allowed). */
  readonly batchBytes: number;
  /** Batches under way at once, at most. */
  readonly batches: number;
  /** Calls waiting, at most; more are refused. */
  readonly waitingCalls: number;
  /** Bytes waiting, at most; more are refused. */
  readonly waitingBytes: number;
  readonly observer?: LaneObserver | undefined;
  readonly tracer?: LaneTracer | undefined;
}

/** What a call adds to its batch. */
export interface Cost {
  /** 1, or for a call of several parts their number. */
  readonly weight: number;
  readonly bytes: number;
}

/**
 * What to do with the calls of a batch that failed. But for `fail` nothing of it was done.
 *
 * - `fail`: all of them fail.
 * - `one_by_one`: one of them is to blame, and only it is to fail.
 * - `conflict`: another transaction is in the way of one of them: it alone is to wait.
 * - `again`: none is to blame; they are sent again.
 */
export type Remedy = "fail" | "one_by_one" | "conflict" | "again";

/** What a lane is given to do. */
export interface LaneWork<Call, Answer> {
  /**
   * Answers a batch, in its order. An answer that is undefined sends its call into the next batch; the
   * first never is. With `makeRoom` it lets the next batch start before it has ended itself.
   */
  readonly run: (
    calls: readonly Call[],
    makeRoom: () => void,
  ) => Promise<readonly (Answer | undefined)[]>;
  /** What a call adds to its batch. */
  readonly cost: (call: Call) => Cost;
  /** What a rejection of `run` means for the batch. */
  readonly remedy: (error: unknown) => Remedy;
}

/** How often a call is sent again after another transaction was in its way. */
const conflictRetries = 20;
/** How often a call is sent again after its batch was lost. A call may be what breaks the connection. */
const lossRetries = 3;

/** Calls that are worth a statement of their own: one costs about as much as five more calls in another. */
const worthABatch = 8;

interface Waiting<Call, Answer> {
  readonly call: Call;
  readonly cost: Cost;
  readonly signal: Cancellation;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
  /** How often it was sent in vain. */
  failures: number;
  /** Goes into no batch with others: it may be what held up the last one. */
  alone: boolean;
  /** When it began to wait, for {@link LaneObserver}. */
  enteredAt: number;
  /** What it belongs to, for {@link LaneTracer}. */
  readonly origin: unknown;
}

/**
 * Gathers concurrent calls into batches. While one batch is under way the next one gathers; there
 * is no timer, so a call that comes alone goes at once.
 *
 * Reads and writes are the same to it: what it does with a batch is given to it.
 */
export class Lane<Call, Answer> {
  readonly #work: LaneWork<Call, Answer>;
  readonly #limits: LaneLimits;
  #waiting: Waiting<Call, Answer>[] = [];
  #waitingBytes = 0;
  #batches = 0;
  /** Calls in the batches under way. */
  #underWay = 0;
  /** Calls in the batch that ended last: their clients may soon call again. */
  #answered = 0;
  #isStarting = false;

  constructor(work: LaneWork<Call, Answer>, limits: LaneLimits) {
    this.#work = work;
    this.#limits = limits;
  }

  /** Calls waiting for a batch. */
  get waitingCalls(): number {
    return this.#waiting.length;
  }

  /**
   * Answers one call, as part of a batch.
   *
   * @throws {Overloaded} at once, when too much is waiting.
   * @throws The signal's reason, when it aborted before the batch was sent.
   */
  submit(call: Call, signal: Cancellation): Promise<Answer> {
    const cost = this.#work.cost(call);
    const { observer, tracer } = this.#limits;
    if (
      this.#waiting.length >= this.#limits.waitingCalls ||
      this.#waitingBytes + cost.bytes > this.#limits.waitingBytes
    ) {
      observer?.refused();
      return Promise.reject(new Overloaded());
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        call,
        cost,
        signal,
        resolve,
        reject,
        failures: 0,
        alone: false,
        enteredAt: observer?.entered(cost.bytes) ?? 0,
        origin: tracer?.origin(),
      });
      this.#waitingBytes += cost.bytes;
      this.#startSoon();
    });
  }

  /** Lets the calls that came with the same packet join: a turn of the event loop, no time. */
  #startSoon(): void {
    if (!this.#isStarting && this.#batches < this.#limits.batches) {
      this.#isStarting = true;
      setImmediate(() => {
        this.#isStarting = false;
        this.#startBatches();
      });
    }
  }

  #startBatches(): void {
    while (this.#batches < this.#limits.batches && this.#waiting.length > 0) {
      const batch = this.#gather(this.#share());
      if (batch.length > 0) {
        this.#batches += 1;
        void this.#answer(batch);
      }
    }
  }

  /**
   * How many of the waiting calls the next batch takes, at most: half of those we know of. Were all taken,
   * the database and we would soon take turns, each with nothing to do while the other has all calls.
   */
  #share(): number {
    const calls = this.#waiting.length + this.#underWay + this.#answered;
    return Math.max(worthABatch, Math.ceil(calls / 2));
  }

  /** Takes from the queue what fits in a batch, and drops what nobody waits for any more. */
  #gather(calls: number): Waiting<Call, Answer>[] {
    const batch: Waiting<Call, Answer>[] = [];
    let weight = 0;
    let bytes = 0;
    let taken = 0;
    for (const waiting of this.#waiting) {
      weight += waiting.cost.weight;
      bytes += waiting.cost.bytes;
      const isFull =
        batch.length >= calls ||
        weight > this.#limits.batchWeight ||
        bytes > this.#limits.batchBytes;
      const goesAlone = waiting.alone || batch[0]?.alone === true;
      if (batch.length > 0 && (isFull || goesAlone)) {
        break;
      }
      taken += 1;
      this.#waitingBytes -= waiting.cost.bytes;
      this.#limits.observer?.left(waiting.cost.bytes, waiting.enteredAt);
      if (waiting.signal.aborted) {
        weight -= waiting.cost.weight;
        bytes -= waiting.cost.bytes;
        waiting.reject(waiting.signal.reason);
      } else {
        batch.push(waiting);
      }
    }
    this.#waiting.splice(0, taken);
    return batch;
  }

  async #answer(batch: readonly Waiting<Call, Answer>[]): Promise<void> {
    try {
      const answers = await this.#run(batch);
      const left: Waiting<Call, Answer>[] = [];
      for (const [index, waiting] of batch.entries()) {
        const answer = answers[index];
        answer === undefined ? left.push(waiting) : waiting.resolve(answer);
      }
      this.#putBack(left);
    } catch (error) {
      await this.#mend(batch, error);
    }
  }

  /** Runs a batch. When it has ended, the next one starts before anything is made of its answers. */
  async #run(batch: readonly Waiting<Call, Answer>[]): Promise<readonly (Answer | undefined)[]> {
    const { observer, tracer } = this.#limits;
    const calls = batch.map((waiting) => waiting.call);
    let hasRoom = false;
    const makeRoom = () => {
      if (!hasRoom) {
        hasRoom = true;
        this.#batches -= 1;
        this.#underWay -= calls.length;
        this.#answered = calls.length;
        this.#startBatches();
      }
    };
    observer?.sent(calls.length);
    this.#underWay += calls.length;
    try {
      return await (tracer === undefined
        ? this.#work.run(calls, makeRoom)
        : tracer.run(
            batch.map((waiting) => waiting.origin),
            () => this.#work.run(calls, makeRoom),
          ));
    } finally {
      makeRoom();
    }
  }

  async #mend(batch: readonly Waiting<Call, Answer>[], error: unknown): Promise<void> {
    const remedy = this.#work.remedy(error);
    if (remedy === "again") {
      this.#sendAgain(batch, error);
    } else if (remedy !== "fail" && batch.length > 1) {
      for (const waiting of batch) {
        this.#batches += 1;
        await this.#answer([waiting]);
      }
    } else {
      for (const waiting of batch) {
        if (remedy === "conflict" && waiting.failures < conflictRetries) {
          // Not waited for: the lane goes on meanwhile.
          void this.#retryLater(waiting);
        } else {
          waiting.reject(error);
        }
      }
    }
  }

  #sendAgain(batch: readonly Waiting<Call, Answer>[], error: unknown): void {
    const again: Waiting<Call, Answer>[] = [];
    for (const waiting of batch) {
      waiting.failures += 1;
      waiting.alone = waiting.failures > 1;
      waiting.failures <= lossRetries ? again.push(waiting) : waiting.reject(error);
    }
    this.#putBack(again);
  }

  async #retryLater(waiting: Waiting<Call, Answer>): Promise<void> {
    await pause(waiting.failures);
    waiting.failures += 1;
    waiting.alone = true;
    this.#putBack([waiting]);
  }

  /** They were here first. */
  #putBack(calls: readonly Waiting<Call, Answer>[]): void {
    if (calls.length > 0) {
      this.#waiting = [...calls, ...this.#waiting];
      for (const waiting of calls) {
        this.#waitingBytes += waiting.cost.bytes;
        waiting.enteredAt = this.#limits.observer?.entered(waiting.cost.bytes) ?? 0;
      }
      this.#startSoon();
    }
  }
}
