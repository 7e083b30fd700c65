import pg from "pg";
import type { Log } from "../log.ts";
import { isConnectionLost, unavailable } from "./errors.ts";
import type { Statement } from "./statements.ts";

/** How to reach the database, and how much of it to use. */
export interface PoolOptions {
  /** Where: a URL, or the fields of an embedded server. */
  readonly connection: pg.ClientConfig;
  /** Connections, at most. */
  readonly connections: number;
  /** How long a connection may take to open, and a statement to answer, in milliseconds. */
  readonly timeoutMs: number;
  readonly log: Log;
  /** Called with every connection failure: the database may be away. */
  readonly onConnectionFailure: (error: unknown) => void;
}

/** Opening a connection shouldn't take longer than this, whatever a statement may take. */
const maxConnectMs = 5_000;
/** Connections nobody needs are given back after this. */
const idleMs = 30_000;
/** How long a statement may hold up the end of the pool. */
const closeMs = 1_000;

const oid = { bool: 16, int8: 20, int4: 23 };

/** PostgreSQL's types as this program wants them: int8 as bigint, everything else it doesn't name as text. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (type: number) => {
    switch (type) {
      case oid.bool:
        return (text: string) => text === "t";
      case oid.int8:
        return (text: string) => BigInt(text);
      case oid.int4:
        return (text: string) => Number(text);
      default:
        return (text: string) => text;
    }
  },
};

/**
 * A few connections to the database, opened when needed and dropped when broken.
 *
 * pg's own `pool.query` closes its connection on any SQL error; this one keeps it, unless the
 * connection itself is in doubt.
 */
export class Pool {
  readonly #pool: pg.Pool;
  readonly #options: PoolOptions;
  readonly #clients = new Set<pg.PoolClient>();

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#pool = new pg.Pool({
      ...options.connection,
      types,
      application_name: "plugin-state-sidecar",
      max: options.connections,
      connectionTimeoutMillis: Math.min(options.timeoutMs, maxConnectMs),
      idleTimeoutMillis: idleMs,
      query_timeout: options.timeoutMs,
      keepAlive: true,
    });
    // A connection that breaks is an event of the pool while it is idle, and of its own while it is
    // in use. Without a listener either would end the process.
    this.#pool.on("error", (error) => this.#connectionFailed(error));
    this.#pool.on("connect", (client) => {
      client.on("error", ignore);
      this.#clients.add(client);
    });
    this.#pool.on("remove", (client) => this.#clients.delete(client));
  }

  /** Connections open now. */
  get size(): number {
    return this.#pool.totalCount;
  }

  /**
   * Runs one statement.
   *
   * @throws {DatabaseUnavailable} when no connection could be had: nothing was sent.
   * @throws pg's own error otherwise; see errors.ts for what it means.
   */
  async run<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const client = await this.#connect();
    let broken: Error | undefined;
    try {
      // pg's own row type is any; each caller names the columns of its statement.
      const result = await client.query({ ...statement, values: [...values] });
      return result.rows as Row[];
    } catch (error) {
      if (isConnectionLost(error)) {
        broken = error instanceof Error ? error : new Error("connection lost");
        this.#connectionFailed(error);
      }
      throw error;
    } finally {
      client.release(broken);
    }
  }

  /**
   * Closes every connection when its statement is done, and cuts those that aren't done after a second:
   * nobody waits for them any more, or they would have been waited for before.
   */
  async close(): Promise<void> {
    const cut = setTimeout(() => {
      // With a statement under way, pg's `end` doesn't wait for it.
      for (const client of this.#clients) void client.end();
    }, closeMs);
    await this.#pool.end().finally(() => clearTimeout(cut));
  }

  async #connect(): Promise<pg.PoolClient> {
    try {
      return await this.#pool.connect();
    } catch (error) {
      this.#connectionFailed(error);
      throw unavailable(error);
    }
  }

  #connectionFailed(error: unknown): void {
    this.#options.log.debug({ err: error }, "database connection failed");
    this.#options.onConnectionFailure(error);
  }
}

/** The statement under way rejects with the same error. */
function ignore(): void {}
