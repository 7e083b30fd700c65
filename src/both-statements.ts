import type { StatementObserver, WatchedStatement } from "./postgres/observer.ts";

/** Lets two watch the statements; with one of them, or none, there is nothing in between. */
export function bothStatements(
  first: StatementObserver | undefined,
  second: StatementObserver | undefined,
): StatementObserver | undefined {
  if (first === undefined || second === undefined) {
    return first ?? second;
  }
  return { waits: (statement) => new Both(first.waits(statement), second.waits(statement)) };
}

class Both implements WatchedStatement {
  readonly #first: WatchedStatement;
  readonly #second: WatchedStatement;

  constructor(first: WatchedStatement, second: WatchedStatement) {
    this.#first = first;
    this.#second = second;
  }

  sent(): void {
    this.#first.sent();
    this.#second.sent();
  }

  ended(): void {
    this.#first.ended();
    this.#second.ended();
  }

  failed(sqlState: string): void {
    this.#first.failed(sqlState);
    this.#second.failed(sqlState);
  }
}
