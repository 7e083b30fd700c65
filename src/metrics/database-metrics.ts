import { Counter, Gauge, Reading } from "./series.ts";

/** As much of the pool as is looked at. */
export interface PoolUse {
  /** Connections open now. */
  readonly size: number;
  readonly idle: number;
  /** Statements that wait for a connection. */
  readonly waiting: number;
}

/** What the sweeper removes, by the statement that does. */
const sweptKinds: ReadonlyMap<string, string> = new Map([
  ["sweep", "entries"],
  ["sweep_answers", "answers"],
]);

/** What is counted of the database as a whole. */
export class DatabaseMetrics {
  readonly #up = new Gauge({
    name: "plugin_state_database_up",
    help: "1 while the database answers and takes writes, else 0.",
  });
  readonly #failures = new Counter({
    name: "plugin_state_database_connection_failures_total",
    help: "Connections to the database that could not be opened, or broke.",
  });
  readonly #swept = new Counter({
    name: "plugin_state_swept_total",
    help: "What the sweeper removed: entries whose time was over, and remembered answers.",
    labelNames: ["kind"],
  });
  readonly #connections = new Reading(
    {
      name: "plugin_state_pool_connections",
      help: "Open database connections, by what they do: in_use or idle.",
      labelNames: ["state"],
    },
    () => {
      const { size, idle } = this.#pool;
      return [
        { labels: { state: "in_use" }, value: size - idle },
        { labels: { state: "idle" }, value: idle },
      ];
    },
  );
  readonly #waiting = new Reading(
    {
      name: "plugin_state_pool_waiting_statements",
      help: "Statements that wait for a database connection.",
    },
    () => [{ labels: {}, value: this.#pool.waiting }],
  );
  readonly #limit = new Gauge({
    name: "plugin_state_pool_connections_limit",
    help: "Database connections that the process may have at most.",
  });
  /** All of them, for the registry. */
  readonly all = [
    this.#up,
    this.#failures,
    this.#swept,
    this.#connections,
    this.#waiting,
    this.#limit,
  ];
  #pool: PoolUse = { size: 0, idle: 0, waiting: 0 };

  constructor() {
    this.serves(false);
    this.#failures.with();
    for (const kind of sweptKinds.values()) {
      this.#swept.with(kind);
    }
  }

  /** From now on this pool is looked at. */
  watchPool(pool: PoolUse, limit: number): void {
    this.#pool = pool;
    this.#limit.with().value = limit;
  }

  /** The database serves, or stopped to. */
  serves(up: boolean): void {
    this.#up.with().value = up ? 1 : 0;
  }

  /** A connection failed. */
  connectionFailed(): void {
    this.#failures.with().value += 1;
  }

  /** A step of the sweeper has removed so many rows. */
  readonly removed = (statement: string, rows: number): void => {
    const kind = sweptKinds.get(statement);
    if (kind !== undefined) {
      this.#swept.with(kind).value += rows;
    }
  };
}
