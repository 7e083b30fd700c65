/** When a sidecar that ended is started again. Times are in milliseconds. */
export interface RestartRule {
  /** The first wait; each further one is twice as long. Default 1,000. */
  readonly initialMs: number;
  /** The longest wait. Default 300,000: five minutes. */
  readonly maxMs: number;
  /** How much of a wait is left to chance, on both sides. Default 0.25: ±25 %. */
  readonly jitter: number;
  /** Restarts in a row before it gives up. Default 10. */
  readonly maxRestarts: number;
  /** A sidecar that was ready for so long was well: the count begins anew. Default 60,000. */
  readonly resetAfterMs: number;
  /** From 0 to 1, as Math.random is. */
  readonly random: () => number;
}

/** The rule that counts when nothing else is said. */
export const defaultRestartRule: RestartRule = {
  initialMs: 1_000,
  maxMs: 300_000,
  jitter: 0.25,
  maxRestarts: 10,
  resetAfterMs: 60_000,
  random: Math.random,
};

/** Exit codes after which the same start can only fail again: usage, no permission, configuration. */
export const finalExitCodes: ReadonlySet<number> = new Set([64, 77, 78]);

/** Counts the restarts in a row, and says how long to wait before the next. */
export class RestartPolicy {
  readonly #rule: RestartRule;
  #inARow = 0;

  constructor(rule: RestartRule) {
    this.#rule = rule;
  }

  /** Restarts since the sidecar was last well. */
  get inARow(): number {
    return this.#inARow;
  }

  /**
   * The wait before the next start, after a life that was ready for `readyMs`; undefined when there
   * were too many in a row.
   */
  nextDelayMs(readyMs: number): number | undefined {
    const { initialMs, maxMs, jitter, maxRestarts, resetAfterMs, random } = this.#rule;
    if (readyMs >= resetAfterMs) this.#inARow = 0;
    if (this.#inARow >= maxRestarts) return undefined;
    const wait = Math.min(maxMs, initialMs * 2 ** this.#inARow++);
    return Math.min(maxMs, wait * (1 - jitter + 2 * jitter * random()));
  }
}
