import type { Closers } from "./closers.ts";
import type { ServeConfig } from "./config/config.ts";
import { demoPlugin } from "./config/limits.ts";
import { type Database, openDatabase, prepareDatabase } from "./database.ts";
import type { DatabaseFinding } from "./database-state.ts";
import type { Log } from "./log.ts";
import type { Observation } from "./observation.ts";
import { unlessAborted } from "./patience.ts";
import { Monitor } from "./postgres/monitor.ts";
import { type Plugin, Plugins } from "./postgres/plugins.ts";
import { Pool } from "./postgres/pool.ts";
import { PostgresStore } from "./postgres/store.ts";
import { Sweeper } from "./postgres/sweeper.ts";
import { maxTransactBytes, type StateBounds } from "./state/limits.ts";
import { version } from "./version.ts";

/**
 * The lanes' bounds. Two batches of reads at once: the answers of one are sent while the database reads
 * the other (17,800 Gets a second instead of 15,200, for 10 % more CPU each). Of writes one: the
 * second only waits for the first's lock (12,800 and 12,400 Sets, for 18 % more). The rest are guesses
 * that serve.
 */
const batch = { batchWeight: 128, batchBytes: maxTransactBytes };
const readBatches = 2;
const writeBatches = 1;
const waiting = { waitingCalls: 10_000, waitingBytes: 64 * 1024 * 1024 };

/** What a backend is opened with. */
export interface BackendOptions {
  readonly config: ServeConfig;
  readonly log: Log;
  /** Gets what has to be released again. */
  readonly closers: Closers;
  readonly watch: Observation;
  /** Gives up waiting for the database. */
  readonly signal: AbortSignal;
  /** Called when the database is away, and will be waited for. */
  readonly onAway: () => void;
}

/** The database of a process: what all its bindings share. */
export class StateBackend {
  readonly #options: BackendOptions;
  readonly #database: Database;
  readonly #pool: Pool;
  readonly #plugins: Plugins;
  readonly #prepared = new Set<string>();
  #monitor: Monitor | undefined;

  /**
   * Waits for the database, and brings its schema up to date.
   *
   * @throws {StartError} when waiting won't help, or wasn't wanted.
   */
  static async open(options: BackendOptions): Promise<StateBackend> {
    const { config, log, closers, signal, onAway } = options;
    const database = await openDatabase(config.database, log, closers, signal);
    const ran = await prepareDatabase(database, { ...config, onAway }, log, signal);
    if (ran.length > 0) {
      log.info({ migrations: ran }, "migrated the database");
    }
    return new StateBackend(options, database);
  }

  private constructor(options: BackendOptions, database: Database) {
    const { config, log, closers, watch } = options;
    this.#options = options;
    this.#database = database;
    this.#pool = new Pool({
      connection: database.connection,
      connections: config.poolSize,
      timeoutMs: config.databaseTimeoutMs,
      log,
      observer: watch.statements,
      onConnectionFailure: () => {
        watch.database?.connectionFailed();
        this.#monitor?.suspect();
      },
    });
    watch.database?.watchPool(this.#pool, config.poolSize);
    closers.add(() => this.#pool.close());
    this.#plugins = new Plugins(this.#pool, config.stateSchema);
  }

  /**
   * Begins to watch the database, and to sweep.
   *
   * @param onChange Called with whether the database serves, now and whenever that changes.
   * @param pluginIds The plugins that are served, asked for each sweep.
   */
  async watch(
    onChange: (finding: DatabaseFinding) => void,
    pluginIds: () => readonly string[],
  ): Promise<void> {
    const { config, log, closers, watch, signal } = this.#options;
    const pool = this.#pool;
    const monitor = new Monitor({ pool, connection: this.#database.connection, log, onChange });
    this.#monitor = monitor;
    closers.add(() => monitor.stop());
    await unlessAborted(monitor.start(), signal);
    const { sweepIntervalMs: intervalMs } = config;
    const onRemoved = watch.database?.removed;
    const sweeper = new Sweeper({ pool, log, pluginIds, intervalMs, onRemoved });
    closers.add(() => sweeper.stop());
    sweeper.start();
  }

  /**
   * Finds plugins by key or UUID: those that are registered, by the names they were asked for. The embedded
   * database's demo plugin is made when it isn't there.
   *
   * @throws {DatabaseUnavailable} when nobody can tell.
   */
  async find(names: readonly string[]): Promise<ReadonlyMap<string, Plugin>> {
    const found = await this.#plugins.findAll(names);
    const { kind } = this.#options.config.database;
    if (kind === "embedded" && names.includes(demoPlugin) && !found.has(demoPlugin)) {
      const demo = await this.#plugins.add({ key: demoPlugin, packageName: demoPlugin, version });
      if (demo !== undefined) found.set(demoPlugin, demo);
    }
    for (const plugin of found.values()) await this.#prepare(plugin);
    return found;
  }

  /** Once each: what comes later, calls and sweeps take care of. */
  async #prepare(plugin: Plugin): Promise<void> {
    if (!this.#prepared.has(plugin.id)) {
      await this.#plugins.prepare(plugin);
      this.#prepared.add(plugin.id);
    }
  }

  /** A plugin's state, with lanes of its own. */
  store({ id }: Plugin, bounds: StateBounds): PostgresStore {
    const { config, watch } = this.#options;
    const { coalescing, poolSize } = config;
    const lane = { ...batch, ...waiting, ...(coalescing ? {} : { batchWeight: 1 }) };
    const reads = { ...lane, batches: coalescing ? readBatches : poolSize };
    const writes = { ...lane, batches: coalescing ? writeBatches : poolSize };
    return new PostgresStore({
      pool: this.#pool,
      pluginId: id,
      reads: { ...reads, ...watch.lane("reads") },
      writes: { ...writes, ...watch.lane("writes") },
      scans: { ...lane, batchWeight: 1, batches: 1, ...watch.lane("scans") },
      bounds,
      settleMs: config.databaseTimeoutMs,
    });
  }
}
