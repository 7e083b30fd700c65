import pg from "pg";
import type { Log } from "../log.ts";
import type { Connection } from "./connection.ts";
import { isConnectionLost, isNameLost, unavailable } from "./errors.ts";
import type { Statement } from "./statements.ts";

/** How to reach the database, and how much of it to use. */
export interface PoolOptions {
  /** Where: a URL, or the fields of an embedded server. */
  readonly connection: Connection;
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
  #usesNames: boolean;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#usesNames = options.connection.namedStatements !== false;
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
    this.#pool.on("connect", (client) => client.on("error", ignore));
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
      const result = await this.#query(client, statement, values);
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
   * Sends a statement under its name, unless it was found, or known from the start, that names get lost on
   * the way. Then nothing has run yet, and it is sent again without one: it is parsed anew each time.
   */
  async #query(
    client: pg.PoolClient,
    { name, ...unnamed }: Statement,
    values: readonly unknown[],
  ): Promise<pg.QueryResult> {
    const query = { ...unnamed, values: [...values] };
    if (!this.#usesNames) {
      return await client.query(query);
    }
    try {
      return await client.query({ ...query, name });
    } catch (error) {
      if (!isNameLost(error)) {
        throw error;
      }
      if (this.#usesNames) {
        this.#usesNames = false;
        this.#options.log.warn(
          "a pooler loses prepared statements: none are used from now on; start with --no-prepared-statements",
        );
      }
      return await client.query(query);
    }
  }

  /** Waits for statements under way, then closes every connection. */
  async close(): Promise<void> {
    await this.#pool.end();
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
