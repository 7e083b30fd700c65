import { PluginNotRegistered } from "../state/errors.ts";
import { pause } from "./backoff.ts";
import { isConflict, readError, unavailable } from "./errors.ts";
import type { Pool } from "./pool.ts";
import { type Statement, settleExternalWrites } from "./statements.ts";

/** The database as one plugin's store sees it: every statement's first parameter is the plugin. */
export class PluginDatabase {
  readonly pluginId: string;
  readonly #pool: Pool;

  constructor(pool: Pool, pluginId: string) {
    this.#pool = pool;
    this.pluginId = pluginId;
  }

  /**
   * The rows of a statement that only reads, at least one. External writes that it sees have their revisions: if
   * some have none, they get them first.
   *
   * @throws what {@link readError} makes of the failure.
   */
  async read<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    try {
      const rows = await this.#pool.run<Row>(statement, [this.pluginId, ...values]);
      return rows.length > 0 ? rows : await this.#readSettled<Row>(statement, values);
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
   * The rows of a statement that writes. None at all means that it did nothing: the plugin has no counter, or more
   * external writes than it could give revisions to on its way. Then that is done first.
   *
   * @throws {PluginNotRegistered} when the plugin is gone.
   * @throws what {@link Pool.run} does.
   */
  async rows<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const endsAt = performance.now() + maxSettleMs;
    for (;;) {
      const rows = await this.#pool.run<Row>(statement, [this.pluginId, ...values]);
      if (rows.length > 0) {
        return rows;
      }
      let more = true;
      while (more) {
        requireTime(endsAt);
        more = await unlessHeld(
          this.#settle((settle) => this.#pool.run(settle, [this.pluginId])),
          true,
        );
      }
    }
  }

  /** The rows of a statement that may have none. */
  async rowsIfAny<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return await this.#pool.run<Row>(statement, [this.pluginId, ...values]);
  }

  /**
   * Reads in the transaction that has just given external writes their revisions: nobody's commit comes between but
   * an external writer's. Against those it is tried again, within the transaction.
   */
  async #readSettled<Row>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const endsAt = performance.now() + maxSettleMs;
    for (;;) {
      requireTime(endsAt);
      const reading = this.#pool.transaction((run) => this.#readIn<Row>(run, statement, values));
      const rows = await unlessHeld<Row[]>(reading, []);
      if (rows.length > 0) {
        return rows;
      }
    }
  }

  /** No rows when there is more to be done than one transaction should do. */
  async #readIn<Row>(
    run: Pool["run"],
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]> {
    for (let attempt = 0; attempt < readAttempts; attempt++) {
      if (await this.#settle((settle) => run(settle, [this.pluginId]))) {
        break;
      }
      const found = await run<Row>(statement, [this.pluginId, ...values]);
      if (found.length > 0) {
        return found;
      }
    }
    return [];
  }

  /** Gives some external writes their revisions; says whether there may be more. */
  async #settle(run: (settle: Statement) => Promise<SettleRow[]>): Promise<boolean> {
    const [row] = await run(settleExternalWrites);
    if (row?.is_registered !== true) {
      throw new PluginNotRegistered(this.pluginId);
    }
    return row.more;
  }
}

/** How long external writes may keep a call from its answer. */
const maxSettleMs = 10_000;

/** @throws {DatabaseUnavailable} when the time has come. */
function requireTime(endsAt: number): void {
  if (performance.now() >= endsAt) {
    throw unavailable(new Error("external writes could not be given their revisions in time"));
  }
}

/** What it resolves to; `instead`, after a pause, when somebody holds the plugin's counter. */
async function unlessHeld<T>(work: Promise<T>, instead: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!isConflict(error)) {
      throw error;
    }
    await pause(1);
    return instead;
  }
}

/** How often a read is tried in one transaction, which holds the plugin's counter. */
const readAttempts = 20;

interface SettleRow {
  readonly is_registered: boolean;
  readonly more: boolean;
}
