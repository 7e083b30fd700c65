import { Overloaded } from "../state/errors.ts";

/** How a lane gathers calls. */
export interface LaneLimits {
  /** Calls in one batch, at most. 1 turns gathering off. */
  readonly batchCalls: number;
  /** Bytes in one batch, at most (one call is always allowed). */
  readonly batchBytes: number;
  /** Batches under way at once, at most. */
  readonly batches: number;
  /** Calls waiting, at most; more are refused. */
  readonly waitingCalls: number;
  /** Bytes waiting, at most; more are refused. */
  readonly waitingBytes: number;
}

interface Waiting<Call, Answer> {
  readonly call: Call;
  readonly bytes: number;
  readonly signal: AbortSignal;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Gathers concurrent calls into batches. While one batch is under way the next one gathers; there
 * is no timer, so a call that comes alone goes at once.
 *
 * Reads and writes are the same to it: it is given `run`, which answers a batch call by call.
 */
export class Lane<Call, Answer> {
  readonly #run: (calls: readonly Call[]) => Promise<readonly Answer[]>;
  readonly #isOneCallsFault: (error: unknown) => boolean;
  readonly #limits: LaneLimits;
  readonly #waiting: Waiting<Call, Answer>[] = [];
  #waitingBytes = 0;
  #batches = 0;

  /**
   * @param run Answers a batch, in its order. When it rejects, nothing of the batch was done or
   *   nobody knows.
   * @param isOneCallsFault Whether a rejection is about one call of the batch, and nothing was done:
   *   then the calls are run one by one, so that only that one fails.
   */
  constructor(
    run: (calls: readonly Call[]) => Promise<readonly Answer[]>,
    isOneCallsFault: (error: unknown) => boolean,
    limits: LaneLimits,
  ) {
    this.#run = run;
    this.#isOneCallsFault = isOneCallsFault;
    this.#limits = limits;
  }

  /** Calls waiting for a batch. */
  get waitingCalls(): number {
    return this.#waiting.length;
  }

  /**
   * Answers one call, as part of a batch.
   *
   * @param bytes What the call adds to its batch.
   * @throws {Overloaded} at once, when too much is waiting.
   * @throws The signal's reason, when it aborted before the batch was sent.
   */
  submit(call: Call, bytes: number, signal: AbortSignal): Promise<Answer> {
    if (
      this.#waiting.length >= this.#limits.waitingCalls ||
      this.#waitingBytes + bytes > this.#limits.waitingBytes
    ) {
      return Promise.reject(new Overloaded());
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ call, bytes, signal, resolve, reject });
      this.#waitingBytes += bytes;
      this.#startBatches();
    });
  }

  #startBatches(): void {
    while (this.#batches < this.#limits.batches && this.#waiting.length > 0) {
      const batch = this.#gather();
      if (batch.length > 0) {
        this.#batches += 1;
        void this.#answer(batch).finally(() => {
          this.#batches -= 1;
          this.#startBatches();
        });
      }
    }
  }

  /** Takes from the queue what fits in a batch, and drops what nobody waits for any more. */
  #gather(): Waiting<Call, Answer>[] {
    const batch: Waiting<Call, Answer>[] = [];
    let bytes = 0;
    let taken = 0;
    for (const waiting of this.#waiting) {
      const isFull =
        batch.length >= this.#limits.batchCalls || bytes + waiting.bytes > this.#limits.batchBytes;
      if (batch.length > 0 && isFull) {
        break;
      }
      taken += 1;
      this.#waitingBytes -= waiting.bytes;
      if (waiting.signal.aborted) {
        waiting.reject(waiting.signal.reason);
      } else {
        batch.push(waiting);
        bytes += waiting.bytes;
      }
    }
    this.#waiting.splice(0, taken);
    return batch;
  }

  async #answer(batch: readonly Waiting<Call, Answer>[]): Promise<void> {
    try {
      const answers = await this.#run(batch.map((waiting) => waiting.call));
      batch.forEach((waiting, index) => {
        // run answers call by call; a missing answer is a bug in it, and must not leave a call waiting.
        const answer = answers[index];
        answer === undefined
          ? waiting.reject(new Error("a batch has fewer answers than calls"))
          : waiting.resolve(answer);
      });
    } catch (error) {
      await this.#refuse(batch, error);
    }
  }

  async #refuse(batch: readonly Waiting<Call, Answer>[], error: unknown): Promise<void> {
    if (batch.length > 1 && this.#isOneCallsFault(error)) {
      for (const waiting of batch) {
        await this.#answer([waiting]);
      }
      return;
    }
    for (const waiting of batch) {
      waiting.reject(error);
    }
  }
}
