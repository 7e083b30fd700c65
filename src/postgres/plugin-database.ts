import { PluginNotRegistered } from "../state/errors.ts";
import { readError } from "./errors.ts";
import type { Pool } from "./pool.ts";
import type { Statement } from "./statements.ts";

/** The database as one plugin's store sees it: every statement's first parameter is the plugin. */
export class PluginDatabase {
  readonly pluginId: string;
  readonly #pool: Pool;
  readonly #addCounter: () => Promise<boolean>;

  /** @param addCounter Makes the counter of a plugin that has none; false when it isn't registered. */
  constructor(pool: Pool, pluginId: string, addCounter: () => Promise<boolean>) {
    this.#pool = pool;
    this.pluginId = pluginId;
    this.#addCounter = addCounter;
  }

  /**
   * The rows of a statement that only reads, at least one.
   *
   * @throws what {@link readError} makes of the failure.
   */
  async read<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    try {
      return await this.rows<Row>(statement, values);
    } catch (error) {
      throw readError(error, this.pluginId);
    }
  }

  /**
   * The rows of a statement that only reads, for two lists of values at once. Undefined if anybody could
   * have to wait for that: something else is under way, or there is no second connection yet. Then one is
   * opened for the next time.
   */
  async readTwice<Row>(
    statement: Statement,
    first: readonly unknown[],
    second: readonly unknown[],
  ): Promise<[Row[], Row[]] | undefined> {
    if (!this.#pool.isQuiet) {
      return undefined;
    }
    if (this.#pool.idle < 2) {
      // By then the statement that is run instead has the first one.
      setImmediate(() => void this.#pool.widen());
      return undefined;
    }
    return await Promise.all([this.read<Row>(statement, first), this.read<Row>(statement, second)]);
  }

  /**
   * The rows of a statement. None at all means that the plugin has no counter: then one is made.
   *
   * @throws {PluginNotRegistered} when the plugin is gone.
   * @throws what {@link Pool.run} does.
   */
  async rows<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const rows = await this.#pool.run<Row>(statement, [this.pluginId, ...values]);
    if (rows.length > 0) {
      return rows;
    }
    if (!(await this.#addCounter())) {
      throw new PluginNotRegistered(this.pluginId);
    }
    return await this.#pool.run<Row>(statement, [this.pluginId, ...values]);
  }

  /** The rows of a statement that isn't about the plugin. */
  async others<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return await this.#pool.run<Row>(statement, values);
  }
}
