import type { PoolClient } from "pg";

/**
 * Connections whose statements ended in this turn of the event loop. What is sent in the same turn, as
 * the next batch is, goes out on one of them at once; what is left goes back to the pool at the turn's end.
 *
 * pg-pool by itself gives a connection away only after everything that the turn has to do, which is
 * sending the answers of the batch before: the database had nothing to do for that long.
 */
export class SpareClients {
  #clients: PoolClient[] = [];
  #isReleasing = false;

  put(client: PoolClient): void {
    this.#clients.push(client);
    if (!this.#isReleasing) {
      this.#isReleasing = true;
      setImmediate(() => this.#release());
    }
  }

  /** The last one, if it's good enough. */
  take(isGood: (client: PoolClient) => boolean): PoolClient | undefined {
    const client = this.#clients.at(-1);
    return client !== undefined && isGood(client) ? this.#clients.pop() : undefined;
  }

  /** Gives one up that broke. */
  drop(client: PoolClient): void {
    const left = this.#clients.filter((spare) => spare !== client);
    if (left.length < this.#clients.length) {
      this.#clients = left;
      client.release(true);
    }
  }

  #release(): void {
    this.#isReleasing = false;
    const clients = this.#clients;
    this.#clients = [];
    for (const client of clients) {
      client.release();
    }
  }
}
