import pg from "pg";
import type { Log } from "../log.ts";
import { Patience } from "../patience.ts";
import { StateError } from "../state/errors.ts";
import { pause } from "./backoff.ts";
import type { Connection } from "./connection.ts";
import {
  isConnectionLost,
  isCrowded,
  isDatabaseChanged,
  isRefusal,
  sqlState,
  unavailable,
} from "./errors.ts";
import type { StatementObserver } from "./observer.ts";
import { openSession } from "./open-session.ts";
import { Sockets } from "./sockets.ts";
import { SpareClients } from "./spare-clients.ts";
import { parserOf, StatementSender } from "./statement-sender.ts";
import { begin, commit, rollback, type Statement } from "./statements.ts";

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
  /** Told of every statement. */
  readonly observer?: StatementObserver | undefined;
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
/** How long statements wait for a database that has fallen silent, from then on: most stalls are shorter. */
const silenceMs = 2_000;
/** What a statement in a transaction gets after one that failed. */
const failedTransaction = "25P02";
/** How long a statement may hold up the end of the pool. */
const closeMs = 1_000;

/**
 * A few connections to the database, opened when needed and dropped when broken.
 *
 * pg's own `pool.query` closes its connection on any SQL error; this one keeps it, unless the
 * connection itself is in doubt.
 */
export class Pool {
  readonly #pool: pg.Pool;
  readonly #options: PoolOptions;
  readonly #sender: StatementSender;
  readonly #sockets = new Sockets();
  /** When each connection was opened, in terms of {@link retire}. */
  readonly #ages = new WeakMap<pg.PoolClient, number>();
  #age = 0;
  /** Connections that are open, without those that only open. */
  #opened = 0;
  /** With a database that has fallen silent. */
  #silence: Patience | undefined;
  #crowdedUntil = 0;
  #answeredAt = 0;
  readonly #clients = new Set<pg.PoolClient>();
  readonly #spare = new SpareClients();
  #refusedAt = 0;

  constructor(options: PoolOptions) {
    this.#options = options;
    const usesNames = options.connection.namedStatements !== false;
    const { timeoutMs, log } = options;
    this.#sender = new StatementSender({ usesNames, timeoutMs, log });
    this.#pool = new pg.Pool({
      ...options.connection,
      types: { getTypeParser: (type: number) => parserOf(type) },
      application_name: "plugin-state-sidecar",
      max: options.connections,
      connectionTimeoutMillis: Math.min(options.timeoutMs, maxConnectMs),
      idleTimeoutMillis: idleMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveMs,
      stream: () => this.#sockets.make(),
      onConnect: async (client) => {
        await openSession(client, options);
        this.#answeredAt = performance.now();
      },
    });
    // A connection that breaks is an event of the pool while it is idle, and of its own while it is
    // in use. Without a listener either would end the process.
    this.#pool.on("error", (error) => this.#connectionFailed(error));
    this.#pool.on("connect", (client) => {
      // The statement under way rejects with the same error.
      client.on("error", () => this.#spare.drop(client));
      this.#ages.set(client, this.#age);
      this.#opened += 1;
      this.#clients.add(client);
    });
    this.#pool.on("remove", (client) => {
      this.#opened -= 1;
      this.#clients.delete(client);
    });
  }

  /** Connections open now. */
  get size(): number {
    return this.#pool.totalCount;
  }

  /** Connections that wait for a statement. */
  get idle(): number {
    return this.#pool.idleCount;
  }

  /** Whether no statement is under way, nor waits. */
  get isQuiet(): boolean {
    return this.idle === this.size && this.waiting === 0;
  }

  /** Statements that wait for a connection. */
  get waiting(): number {
    return this.#pool.waitingCount;
  }

  /** Whether statements wait for the connections there are, as the server lately had no other for us. */
  get isCrowded(): boolean {
    return performance.now() < this.#crowdedUntil && this.#opened > 0;
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
   * wait for a while from now on, and fail at once after it. For a database that is silent, whose
   * connections would each be waited for.
   */
  giveUp(): void {
    this.#silence ??= new Patience(silenceMs);
    this.#sockets.shut();
  }

  /** Opens connections again. */
  resume(): void {
    this.#sockets.open();
    this.#silence?.end();
    this.#silence = undefined;
  }

  /** Lets no statement use the connections there are: new ones may lead to another server. */
  retire(): void {
    this.#age += 1;
  }

  /** Opens a connection more than there are, for statements to come. That it can't be had does no harm. */
  async widen(): Promise<void> {
    if (this.idle === 0 && this.size < this.#options.connections && !this.isCrowded) {
      await this.#connect().then(
        (client) => client.release(),
        () => undefined,
      );
    }
  }

  /**
   * Runs one statement.
   *
   * @throws {DatabaseUnavailable} when no connection could be had: nothing was sent.
   * @throws pg's own error otherwise; see errors.ts for what it means.
   */
  async run<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const watched = this.#options.observer?.waits(statement.name);
    return await this.#withClient((client) => this.#send<Row>(client, statement, values, watched));
  }

  /**
   * Runs statements in one transaction, which commits when `work` resolves. What it did is undone when it rejects.
   *
   * @throws what {@link run} does, and `work`.
   */
  async transaction<T>(work: (run: Pool["run"]) => Promise<T>): Promise<T> {
    try {
      return await this.#transactOnce(work);
    } catch (error) {
      // A pooler has lost a statement's name. By now none has one, and nothing was done.
      if (sqlState(error) !== failedTransaction) throw error;
      return await this.#transactOnce(work);
    }
  }

  async #transactOnce<T>(work: (run: Pool["run"]) => Promise<T>): Promise<T> {
    return await this.#withClient(async (client) => {
      const run: Pool["run"] = (statement, values) =>
        this.#send(client, statement, values, this.#options.observer?.waits(statement.name));
      await run(begin, []);
      try {
        const result = await work(run);
        await run(commit, []);
        return result;
      } catch (error) {
        if (!isConnectionLost(error) || error instanceof StateError) await run(rollback, []);
        throw error;
      }
    });
  }

  /** Lends a connection, and puts it away again, unless it broke. */
  async #withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = this.#spare.take((spare) => this.#isUsable(spare)) ?? (await this.#connect());
    let broken: Error | undefined;
    try {
      return await work(client);
    } catch (error) {
      if (!(error instanceof StateError) && (isConnectionLost(error) || isDatabaseChanged(error))) {
        broken = error instanceof Error ? error : new Error("connection lost");
        this.#connectionFailed(error);
      }
      throw error;
    } finally {
      this.#putAway(client, broken);
    }
  }

  async #send<Row>(
    client: pg.PoolClient,
    statement: Statement,
    values: readonly unknown[],
    watched: ReturnType<StatementObserver["waits"]> | undefined,
  ): Promise<Row[]> {
    watched?.sent();
    try {
      // Each caller names the columns of its statement.
      const rows = (await this.#sender.send(client, statement, values)) as Row[];
      watched?.ended();
      this.#answeredAt = performance.now();
      return rows;
    } catch (error) {
      watched?.failed(sqlState(error));
      if (!isConnectionLost(error) && !isDatabaseChanged(error)) {
        this.#answeredAt = performance.now();
      }
      throw error;
    }
  }

  #putAway(client: pg.PoolClient, broken: Error | undefined): void {
    if (broken !== undefined || this.waiting > 0) {
      client.release(broken);
    } else {
      this.#spare.put(client);
    }
  }

  #isUsable(client: pg.PoolClient): boolean {
    return this.#silence === undefined && this.#ages.get(client) === this.#age;
  }

  /**
   * Closes every connection when its statement is done, and cuts those that aren't done after a second:
   * nobody waits for them any more, or they would have been waited for before.
   */
  async close(): Promise<void> {
    const cut = setTimeout(() => {
      // With a statement under way, pg's `end` doesn't wait for it.
      for (const client of this.#clients) void client.end();
      // Nor for one that is only being opened.
      this.#sockets.shut();
    }, closeMs);
    await this.#pool.end().finally(() => clearTimeout(cut));
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
      await this.#silence?.over;
      if (this.#silence !== undefined) {
        throw unavailable(new Error("the database is away"));
      }
      this.#bound();
      try {
        return await this.#pool.connect();
      } catch (error) {
        if (this.#silence !== undefined) {
          // It was given up while it opened: nothing is wrong with this statement.
          continue;
        }
        if (isRefusal(error)) {
          this.#refusedAt = performance.now();
        }
        if (!isCrowded(error) || !this.#hadSome || attempt === crowdedAttempts) {
          this.#connectionFailed(error);
          throw unavailable(error);
        }
        // There's no other connection for us, but we have some: they do for a while. Or we had: sessions
        // that were ended take up their places for a moment longer.
        this.#crowdedUntil = performance.now() + crowdedMs;
        // Broken ones are among those for a moment.
        await pause(attempt);
      }
    }
  }

  /** Whether there are connections, or were a moment ago. */
  get #hadSome(): boolean {
    return this.#opened > 0 || performance.now() - this.#answeredAt < crowdedMs;
  }

  /** Keeps the pool from opening connections that the server hasn't got. */
  #bound(): void {
    const { connections } = this.#options;
    this.#pool.options.max = this.isCrowded ? Math.min(this.#opened, connections) : connections;
  }

  #connectionFailed(error: unknown): void {
    this.#options.log.debug({ err: error }, "database connection failed");
    this.#options.onConnectionFailure(error);
  }
}
