import pg from "pg";
import type { Log } from "../log.ts";
import { pause } from "./backoff.ts";
import {
  isConnectionLost,
  isCrowded,
  isDatabaseChanged,
  isRefusal,
  unavailable,
} from "./errors.ts";
import { Sockets } from "./sockets.ts";
import { checkStandby, prepareSession, type Statement } from "./statements.ts";

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
/**
 * When a connection has been silent for so long, the system asks whether the other end is still there;
 * firewalls don't forget it meanwhile.
 */
const keepAliveMs = 15_000;
/** A server that has no more connections isn't asked for another one before this. */
const crowdedMs = 1_000;
/** How often a call asks the pool again because the server had no connection for it: for 0.2 to 0.3 s. */
const crowdedAttempts = 8;

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
  readonly #sockets = new Sockets();
  /** When each connection was opened, in terms of {@link retire}. */
  readonly #ages = new WeakMap<pg.PoolClient, number>();
  #age = 0;
  /** Connections that are open, without those that only open. */
  #opened = 0;
  #isAway = false;
  #crowdedUntil = 0;
  #answeredAt = 0;
  #refusedAt = 0;

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
      keepAliveInitialDelayMillis: keepAliveMs,
      stream: () => this.#sockets.make(),
      onConnect: (client) => this.#prepare(client),
    });
    // A connection that breaks is an event of the pool while it is idle, and of its own while it is
    // in use. Without a listener either would end the process.
    this.#pool.on("error", (error) => this.#connectionFailed(error));
    this.#pool.on("connect", (client) => {
      client.on("error", ignore);
      this.#ages.set(client, this.#age);
      this.#opened += 1;
    });
    this.#pool.on("remove", () => {
      this.#opened -= 1;
    });
  }

  /** Connections open now. */
  get size(): number {
    return this.#pool.totalCount;
  }

  /** When a statement was last answered, on the clock of `performance.now()`. */
  get answeredAt(): number {
    return this.#answeredAt;
  }

  /** When the database last refused a connection by saying so, on the same clock. */
  get refusedAt(): number {
    return this.#refusedAt;
  }

  /** Bytes that the database has sent, of any kind, since this pool was made. */
  get bytesRead(): number {
    return this.#sockets.bytesRead;
  }

  /**
   * Gives up every connection, and opens none until {@link resume}: statements under way are lost, others
   * fail at once. For a database that is silent, whose connections would each be waited for.
   */
  giveUp(): void {
    this.#isAway = true;
    this.#sockets.shut();
  }

  /** Opens connections again. */
  resume(): void {
    this.#isAway = false;
    this.#sockets.open();
  }

  /** Lets no statement use the connections there are: new ones may lead to another server. */
  retire(): void {
    this.#age += 1;
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
      this.#answeredAt = performance.now();
      return result.rows as Row[];
    } catch (error) {
      if (isConnectionLost(error) || isDatabaseChanged(error)) {
        broken = error instanceof Error ? error : new Error("connection lost");
        this.#connectionFailed(error);
      } else {
        this.#answeredAt = performance.now();
      }
      throw error;
    } finally {
      client.release(broken);
    }
  }

  /** Waits for statements under way, then closes every connection. */
  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #connect(): Promise<pg.PoolClient> {
    for (;;) {
      const client = await this.#checkOut();
      if (this.#ages.get(client) === this.#age) {
        return client;
      }
      client.release(true);
    }
  }

  async #checkOut(): Promise<pg.PoolClient> {
    for (let attempt = 1; ; attempt++) {
      if (this.#isAway) {
        throw unavailable(new Error("the database is away"));
      }
      this.#bound();
      try {
        return await this.#pool.connect();
      } catch (error) {
        if (isRefusal(error)) {
          this.#refusedAt = performance.now();
        }
        if (!isCrowded(error) || this.#opened === 0 || attempt === crowdedAttempts) {
          this.#connectionFailed(error);
          throw unavailable(error);
        }
        // There's no other connection for us, but we have some: they do for a while.
        this.#crowdedUntil = performance.now() + crowdedMs;
        // Broken ones are among those for a moment.
        await pause(attempt);
      }
    }
  }

  /** Keeps the pool from opening connections that the server hasn't got. */
  #bound(): void {
    const isCrowded = performance.now() < this.#crowdedUntil && this.#opened > 0;
    const { connections } = this.#options;
    this.#pool.options.max = isCrowded ? Math.min(this.#opened, connections) : connections;
  }

  /**
   * What a connection is for before anything else: a standby is refused, as it may not have yet what was
   * acknowledged, or never get it.
   */
  async #prepare(client: pg.ClientBase): Promise<void> {
    const { rows } = await client.query<{ standby: boolean }>(checkStandby.text);
    if (rows[0]?.standby !== false) {
      throw new Error("the server is a standby");
    }
    try {
      await client.query(prepareSession.text);
      this.#answeredAt = performance.now();
    } catch (error) {
      if (isConnectionLost(error)) {
        throw error;
      }
      // A database that is like PostgreSQL, but hasn't all of its settings.
      this.#options.log.debug({ err: error }, "could not prepare the session");
    }
  }

  #connectionFailed(error: unknown): void {
    this.#options.log.debug({ err: error }, "database connection failed");
    this.#options.onConnectionFailure(error);
  }
}

/** The statement under way rejects with the same error. */
function ignore(): void {}
