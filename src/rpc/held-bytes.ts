/** How many bytes of one kind the clients of a server may make it hold. */
export interface HeldBounds {
  /** One connection's. A single message may be larger than that. */
  readonly perConnection: number;
  /** All connections' together; from there on each has an equal share of it. */
  readonly perServer: number;
}

/**
 * Bytes that are held for clients, requests that aren't done or replies that nobody has read, and who
 * may add to them. A client that hoards is refused, and the others keep their share: all together never
 * hold more than twice `perServer`, and one message for each connection.
 */
export class HeldBytes {
  readonly #bounds: HeldBounds;
  #total = 0;

  constructor(bounds: HeldBounds) {
    this.#bounds = bounds;
  }

  /** All that is held. */
  get total(): number {
    return this.#total;
  }

  /** Whether a connection that holds `held`, one of so many, may not hold this much more. */
  refuses(held: number, size: number, connections: number): boolean {
    if (held === 0) {
      return false;
    }
    const { perConnection, perServer } = this.#bounds;
    return (
      held + size > perConnection ||
      (this.#total + size > perServer && held + size > perServer / connections)
    );
  }

  add(size: number): void {
    this.#total += size;
  }
}
