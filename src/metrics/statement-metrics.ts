import type { StatementObserver, WatchedStatement } from "../postgres/observer.ts";
import { Counter, type Distribution, durationBounds, Histogram } from "./series.ts";

/** What is counted of the statements that the pool is asked for. */
export class StatementMetrics implements StatementObserver {
  readonly #durations = new Histogram({
    name: "plugin_state_statement_duration_seconds",
    help: "Time from sending a statement to its answer or failure, by the statement's name.",
    labelNames: ["statement"],
    bounds: durationBounds,
  });
  readonly #errors = new Counter({
    name: "plugin_state_statement_errors_total",
    help: "Statements that failed, by name and by class of SQLSTATE (its first two characters), or 'connection' when PostgreSQL didn't answer.",
    labelNames: ["statement", "sqlstate_class"],
  });
  readonly #waits = new Histogram({
    name: "plugin_state_pool_wait_seconds",
    help: "Time that a statement waited for a database connection.",
    bounds: durationBounds,
  });
  readonly #wait = this.#waits.with();
  readonly #byStatement = new Map<string, Distribution>();
  /** All of them, for the registry. */
  readonly all = [this.#durations, this.#errors, this.#waits];

  waits(statement: string): WatchedStatement {
    return new TimedStatement(statement, this);
  }

  /** A statement got its connection. */
  sent(waitedMs: number): void {
    this.#wait.observe(waitedMs / 1000);
  }

  /** A statement was answered, or failed. */
  ended(statement: string, durationMs: number): void {
    let durations = this.#byStatement.get(statement);
    if (durations === undefined) {
      durations = this.#durations.with(statement);
      this.#byStatement.set(statement, durations);
    }
    durations.observe(durationMs / 1000);
  }

  /** A statement failed. */
  failed(statement: string, sqlState: string): void {
    this.#errors.with(statement, sqlStateClass(sqlState)).value += 1;
  }
}

class TimedStatement implements WatchedStatement {
  readonly #statement: string;
  readonly #metrics: StatementMetrics;
  #since = performance.now();

  constructor(statement: string, metrics: StatementMetrics) {
    this.#statement = statement;
    this.#metrics = metrics;
  }

  sent(): void {
    const now = performance.now();
    this.#metrics.sent(now - this.#since);
    this.#since = now;
  }

  ended(): void {
    this.#metrics.ended(this.#statement, performance.now() - this.#since);
  }

  failed(sqlState: string): void {
    this.ended();
    this.#metrics.failed(this.#statement, sqlState);
  }
}

/** Two characters; a foreign trigger may raise what it likes, but no more than them. */
function sqlStateClass(sqlState: string): string {
  return /^[0-9A-Z]{5}$/.test(sqlState) ? sqlState.slice(0, 2) : "connection";
}
