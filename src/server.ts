import type { BindingAddress, Surroundings } from "./binding-server.ts";
import { Bindings } from "./bindings.ts";
import { Closers } from "./closers.ts";
import type { BindingConfig, ServeConfig } from "./config/config.ts";
import { onceThere } from "./database.ts";
import { DatabaseState } from "./database-state.ts";
import { PluginStateService } from "./gen/pluginstate/v1/plugin_state_service_pb.ts";
import { openHealthListener } from "./health-listener.ts";
import type { Log } from "./log.ts";
import { observe } from "./observation.ts";
import { HealthService } from "./rpc/health.ts";
import { StateBackend } from "./state-backend.ts";

/** A running sidecar. */
export interface Sidecar {
  /** What it serves; changes with {@link reload}. */
  readonly bindings: readonly BindingAddress[];
  /** Where metrics are served; undefined when they aren't. */
  readonly metrics?: string | undefined;
  /** Where health alone is served, if it was asked for. */
  readonly healthAddress?: string | undefined;
  /** Serves these bindings instead, see {@link Bindings.reload}. */
  reload(bindings: readonly BindingConfig[]): Promise<void>;
  /** Drains: calls in flight finish, then everything is released. Idempotent. */
  stop(): Promise<void>;
  /** Cuts every call and releases everything. Idempotent. */
  abort(): Promise<void>;
}

/**
 * Puts the parts together and starts them: listeners first, so that health can be asked at once,
 * then the database; or the other way round with `acceptWhenReady`. Resolves when the sidecar serves.
 *
 * @throws {StartError} when it can't; everything started is released again.
 */
export async function startSidecar(
  config: ServeConfig,
  log: Log,
  signal: AbortSignal,
): Promise<Sidecar> {
  const closers = new Closers();
  const health = new HealthService([PluginStateService.typeName]);
  let bindings: Bindings | undefined;
  try {
    const watch = await observe(config, log, closers, () => health.isServing);
    const database = new DatabaseState();
    const surroundings: Surroundings = { config, log, health, database, watch };
    bindings = new Bindings(config.bindings, surroundings);
    const { healthListen, acceptWhenReady } = config;
    const healthAddress =
      healthListen && (await openHealthListener(healthListen, health, log, closers));
    if (!acceptWhenReady) await bindings.open();
    await serveState(bindings, surroundings, closers, signal);
    if (acceptWhenReady) await bindings.open();
    const addresses = { metrics: watch.address, healthAddress };
    return new RunningSidecar(bindings, health, closers, config, addresses);
  } catch (error) {
    await release(health, bindings, closers, 0);
    throw error;
  }
}

/** Opens the database and lets the bindings' calls reach it. */
async function serveState(
  bindings: Bindings,
  { config, log, watch }: Surroundings,
  closers: Closers,
  signal: AbortSignal,
): Promise<void> {
  const onAway = () => bindings.away();
  const backend = await StateBackend.open({ config, log, closers, watch, signal, onAway });
  const { failFast } = config;
  await onceThere(() => bindings.bind(backend), { failFast, onAway }, log, signal);
  await backend.watch(
    (finding) => bindings.databaseChanged(finding),
    () => bindings.pluginIds,
  );
  bindings.followRegistry(backend);
}

class RunningSidecar implements Sidecar {
  readonly metrics: string | undefined;
  readonly healthAddress: string | undefined;
  readonly #bindings: Bindings;
  readonly #stop: (graceMs: number) => Promise<void>;
  readonly #graceMs: number;

  constructor(
    bindings: Bindings,
    health: HealthService,
    closers: Closers,
    config: ServeConfig,
    { metrics, healthAddress }: Pick<Sidecar, "metrics" | "healthAddress">,
  ) {
    this.metrics = metrics;
    this.healthAddress = healthAddress;
    this.#bindings = bindings;
    this.#graceMs = config.drainTimeoutMs;
    this.#stop = (graceMs) => release(health, bindings, closers, graceMs);
  }

  get bindings(): readonly BindingAddress[] {
    return this.#bindings.addresses;
  }

  async reload(bindings: readonly BindingConfig[]): Promise<void> {
    await this.#bindings.reload(bindings);
  }

  async stop(): Promise<void> {
    await this.#stop(this.#graceMs);
  }

  async abort(): Promise<void> {
    await this.#stop(0);
  }
}

/**
 * From the wire inwards: new connections, calls, database. A client that hasn't heard yet that it
 * should go elsewhere is served like any other: none is refused while its connection stands.
 */
async function release(
  health: HealthService,
  bindings: Bindings | undefined,
  closers: Closers,
  graceMs: number,
): Promise<void> {
  health.shutdown();
  await bindings?.close(graceMs);
  await closers.close();
}
