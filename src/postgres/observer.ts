/**
 * Who watches the database work. All of it is optional, and what nobody watches costs nothing. Nothing
 * here names a library: src/metrics and src/tracing implement it.
 */

/** Told of every statement that the pool is asked for. */
export interface StatementObserver {
  /** A statement waits for a connection. `statement` is its name in statements.ts. */
  waits(statement: string): WatchedStatement;
}

/** One statement on its way. One that gets no connection is neither sent nor ended. */
export interface WatchedStatement {
  /** It has its connection, and goes. */
  sent(): void;
  /** Its answer has come. */
  ended(): void;
  /** It failed; `sqlState` is PostgreSQL's code, or "" when the connection did. */
  failed(sqlState: string): void;
}

/** Told of the calls of one kind of lane, of whichever plugin. */
export interface LaneObserver {
  /** A call waits from now on; returns the time, for `left`. */
  entered(bytes: number): number;
  /** It doesn't any more: it goes with a batch, or nobody wants its answer. */
  left(bytes: number, enteredAt: number): void;
  /** A call was refused, because too much waits. */
  refused(): void;
  /** A batch of so many calls goes. */
  sent(calls: number): void;
}

/** Keeps together what a call causes, across the batch that it shares with others. */
export interface LaneTracer {
  /** What the call that is being made belongs to. */
  origin(): unknown;
  /** Runs a batch on behalf of its calls' origins. */
  run<Answer>(origins: readonly unknown[], work: () => Promise<Answer>): Promise<Answer>;
}
