import type { PoolClient, QueryConfig, QueryResult } from "pg";
import type { Log } from "../log.ts";
import { isNameLost, StatementLate } from "./errors.ts";
import type { Statement } from "./statements.ts";

const oid = { bool: 16, int8: 20, int4: 23 };

/** How a type's texts are read, by its oid. */
export type ParserOf = (oid: number) => (text: string) => unknown;

/** PostgreSQL's types as this program wants them: int8 as bigint, everything else it doesn't name as text. */
export const parserOf: ParserOf = (type) => {
  switch (type) {
    case oid.bool:
      return (text) => text === "t";
    case oid.int8:
      return BigInt;
    case oid.int4:
      return Number;
    default:
      return (text) => text;
  }
};

/** How statements are sent. */
export interface StatementSenderOptions {
  /** Whether they have names to begin with, under which the server keeps them prepared. */
  readonly usesNames: boolean;
  /** How long a statement may take to answer, in milliseconds. */
  readonly timeoutMs: number;
  readonly log: Log;
}

/** Sends statements on connections of one database. */
export class StatementSender {
  readonly #timeoutMs: number;
  readonly #log: Log;
  #usesNames: boolean;

  constructor({ usesNames, timeoutMs, log }: StatementSenderOptions) {
    this.#usesNames = usesNames;
    this.#timeoutMs = timeoutMs;
    this.#log = log;
  }

  /**
   * Sends a statement under its name, unless it was found, or known from the start, that names get lost on
   * the way. Then nothing has run yet, and it is sent again without one: it is parsed anew each time.
   */
  async send(
    client: PoolClient,
    statement: Statement,
    values: readonly unknown[],
  ): Promise<unknown[]> {
    const isNamed = this.#usesNames;
    try {
      return await this.#sendOnce(client, statement, values, isNamed);
    } catch (error) {
      if (!isNamed || !isNameLost(error)) {
        throw error;
      }
      if (this.#usesNames) {
        this.#usesNames = false;
        this.#log.warn(
          "a pooler loses prepared statements: none are used from now on; start with --no-prepared-statements",
        );
      }
      return await this.#sendOnce(client, statement, values, false);
    }
  }

  /**
   * Not with pg's `query_timeout`, nor for its promise: both write a function into the query, which V8 then
   * allocates with what lives long, and with it every row of every statement (docs/performance.md).
   */
  #sendOnce(
    client: PoolClient,
    { name, text, rowMode }: Statement,
    values: readonly unknown[],
    isNamed: boolean,
  ): Promise<unknown[]> {
    // With `rowMode`, which the types have for another function, the rows are arrays.
    const query: QueryConfig = { text, values: [...values], ...(rowMode && { rowMode }) };
    if (isNamed) query.name = name;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new StatementLate(name)), this.#timeoutMs);
      void client.query(query, (error: Error | null, result: QueryResult) => {
        clearTimeout(timer);
        error ? reject(error) : resolve(result.rows);
      });
    });
  }
}
