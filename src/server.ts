import type { Server } from "@grpc/grpc-js";
import { BoundPlugin } from "./bound-plugin.ts";
import { callLog } from "./call-log.ts";
import { Closers } from "./closers.ts";
import type { BindingConfig, ServeConfig } from "./config/config.ts";
import { demoPlugin } from "./config/limits.ts";
import { openDatabase, prepareDatabase } from "./database.ts";
import { file_google_rpc_error_details } from "./gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "./gen/google/rpc/status_pb.ts";
import { file_pluginstate_v1_errors } from "./gen/pluginstate/v1/errors_pb.ts";
import { PluginStateService } from "./gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Log } from "./log.ts";
import { Monitor } from "./postgres/monitor.ts";
import { type Plugin, Plugins } from "./postgres/plugins.ts";
import { Pool } from "./postgres/pool.ts";
import { PostgresStore } from "./postgres/store.ts";
import { Sweeper } from "./postgres/sweeper.ts";
import { refusalLog } from "./refusal-log.ts";
import type { Refusal } from "./rpc/connections.ts";
import { addUnaryService } from "./rpc/handler.ts";
import { HealthService } from "./rpc/health.ts";
import { drain, ListenError, type Listener, listen } from "./rpc/listener.ts";
import { addReflection, type Reflection } from "./rpc/reflection.ts";
import { createGrpcServer } from "./rpc/server-options.ts";
import { renewStreamTables } from "./rpc/stream-tables.ts";
import { overloaded } from "./service/overloaded.ts";
import { pluginStateHandlers } from "./service/plugin-state-service.ts";
import { completeStatus, statusOf } from "./service/status.ts";
import { ExitCode, StartError } from "./start-error.ts";
import { maxTransactBytes } from "./state/limits.ts";
import { version } from "./version.ts";

/** A running sidecar. */
export interface Sidecar {
  readonly bindings: readonly { plugin: string; pluginId: string; address: string }[];
  /** Drains: calls in flight finish, then everything is released. Idempotent. */
  stop(): Promise<void>;
  /** Cuts every call and releases everything. Idempotent. */
  abort(): Promise<void>;
}

/** Calls at once on one connection; a client holds back what is above it. */
const maxConcurrentStreams = 1024;
/** Beside one value of the largest size, a request may hold this much more. */
const requestSlackBytes = 1024 * 1024;

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

/**
 * Puts the parts together and starts them: listeners first, so that health can be asked at once,
 * then the database. Resolves when the sidecar serves.
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
  const listeners: BoundListener[] = [];
  try {
    for (const binding of config.bindings) {
      listeners.push(await bindListener(binding, config, log, health));
    }
    const plugins = await serveState(config, log, signal, closers, health, listeners);
    return new RunningSidecar(config, health, listeners, plugins, closers);
  } catch (error) {
    await release(health, listeners, closers, 0);
    throw error;
  }
}

interface BoundListener {
  readonly config: BindingConfig;
  readonly plugin: BoundPlugin;
  readonly server: Server;
  readonly reflection: Reflection;
  readonly listener: Listener;
}

async function bindListener(
  binding: BindingConfig,
  config: ServeConfig,
  log: Log,
  health: HealthService,
): Promise<BoundListener> {
  const plugin = new BoundPlugin(version, config.bounds);
  const bindingLog = log.child({ plugin: binding.plugin });
  const onRefused = refusalLog(bindingLog);
  const server = createGrpcServer({
    maxReceiveBytes:
      Math.max(2 * config.bounds.maxValueBytes, maxTransactBytes) + requestSlackBytes,
    maxSendBytes: -1,
    maxConcurrentStreams,
    maxCallMs: config.maxCallMs,
    interceptors: [renewStreamTables()],
    completeStatus,
    overloaded,
    onRefused,
  });
  const onFinished = callLog(bindingLog, config.slowCallMs);
  addUnaryService(server, PluginStateService, pluginStateHandlers(plugin), {
    toStatus: statusOf,
    onFinished,
  });
  health.addTo(server);
  const reflection = addReflection(server, describedFiles, [PluginStateService.typeName]);
  const listener = await bindAddress(server, binding, config, log, onRefused);
  return { config: binding, plugin, server, reflection, listener };
}

/** What reflection describes beside health and itself: our service, and what its errors hold. */
const describedFiles = [
  PluginStateService.file,
  file_pluginstate_v1_errors,
  file_google_rpc_status,
  file_google_rpc_error_details,
];

async function bindAddress(
  server: Server,
  binding: BindingConfig,
  config: ServeConfig,
  log: Log,
  onRefused: (refusal: Refusal) => void,
): Promise<Listener> {
  try {
    return await listen(server, binding.listen, {
      loopbackOnly: !config.insecure,
      maxConnections: config.maxConnections,
      onRefused,
      onAcceptError: (error) => log.error({ err: error }, "can't accept connections"),
    });
  } catch (error) {
    throw error instanceof ListenError ? bindError(error) : error;
  }
}

function bindError(error: ListenError): StartError {
  const exitCode = error.reason === "permission" ? ExitCode.noPermission : ExitCode.cannotBind;
  const hint =
    error.reason === "not_loopback"
      ? "There is no TLS in this release: listen on 127.0.0.1, ::1 or a unix socket, or allow plain text with --insecure."
      : "Give another address with --listen; port 0 lets the system choose one.";
  const retryable = error.reason === "address_in_use";
  return new StartError(error.reason.toUpperCase(), error.message, {
    exitCode,
    retryable,
    hint,
    cause: error,
  });
}

/** Opens the database and gives each listener its store; returns the listeners' plugins, in order. */
async function serveState(
  config: ServeConfig,
  log: Log,
  signal: AbortSignal,
  closers: Closers,
  health: HealthService,
  listeners: readonly BoundListener[],
): Promise<Plugin[]> {
  const database = await openDatabase(config.database, log, closers, signal);
  const ran = await prepareDatabase(database, config, log, signal);
  if (ran.length > 0) {
    log.info({ migrations: ran }, "migrated the database");
  }
  let monitor: Monitor | undefined;
  const pool = new Pool({
    connection: database.connection,
    connections: config.poolSize,
    timeoutMs: config.databaseTimeoutMs,
    log,
    onConnectionFailure: () => monitor?.suspect(),
  });
  closers.add(() => pool.close());
  const plugins = new Plugins(pool, config.stateSchema);
  const bound: Plugin[] = [];
  for (const { config: binding, plugin: boundPlugin } of listeners) {
    const plugin = await findPlugin(plugins, binding.plugin, config);
    boundPlugin.bind(plugin, storeOf(pool, plugins, plugin, config));
    bound.push(plugin);
  }
  monitor = new Monitor(pool, log, (up) => health.setServing(up));
  closers.add(() => monitor?.stop());
  await monitor.start();
  const pluginIds = bound.map(({ id }) => id);
  const sweeper = new Sweeper({ pool, log, pluginIds, intervalMs: config.sweepIntervalMs });
  closers.add(() => sweeper.stop());
  sweeper.start();
  return bound;
}

function storeOf(pool: Pool, plugins: Plugins, { id }: Plugin, config: ServeConfig): PostgresStore {
  const { coalescing, poolSize } = config;
  const lane = coalescing ? batch : { ...batch, batchWeight: 1 };
  return new PostgresStore({
    pool,
    pluginId: id,
    addCounter: () => plugins.addCounter(id),
    reads: { ...lane, ...waiting, batches: coalescing ? readBatches : poolSize },
    writes: { ...lane, ...waiting, batches: coalescing ? writeBatches : poolSize },
    scans: { ...batch, ...waiting, batchWeight: 1, batches: 1 },
    bounds: config.bounds,
    settleMs: config.databaseTimeoutMs,
  });
}

async function findPlugin(plugins: Plugins, name: string, config: ServeConfig): Promise<Plugin> {
  const found = await plugins.find(name);
  if (found !== undefined) {
    await plugins.addCounter(found.id);
    return found;
  }
  if (name === demoPlugin && config.database.kind === "embedded") {
    const demo = await plugins.add({ key: demoPlugin, packageName: demoPlugin, version });
    if (demo !== undefined) {
      return demo;
    }
  }
  throw new StartError("PLUGIN_NOT_REGISTERED", `plugin ${name} is not registered`, {
    exitCode: ExitCode.configuration,
    hint: `Let the host install it, or register it: plugin-state plugin add ${name}`,
  });
}

class RunningSidecar implements Sidecar {
  readonly bindings: Sidecar["bindings"];
  readonly #stop: (graceMs: number) => Promise<void>;
  readonly #graceMs: number;

  constructor(
    config: ServeConfig,
    health: HealthService,
    listeners: readonly BoundListener[],
    plugins: readonly Plugin[],
    closers: Closers,
  ) {
    this.bindings = listeners.map(({ listener, config: { plugin } }, index) => {
      const { id: pluginId, key } = plugins[index] ?? { id: "", key: plugin };
      return { plugin: key, pluginId, address: listener.address };
    });
    this.#graceMs = config.drainTimeoutMs;
    this.#stop = (graceMs) => release(health, listeners, closers, graceMs);
  }

  async stop(): Promise<void> {
    await this.#stop(this.#graceMs);
  }

  async abort(): Promise<void> {
    await this.#stop(0);
  }
}

/** From the wire inwards: no new calls, calls in flight, connections, database. */
async function release(
  health: HealthService,
  listeners: readonly BoundListener[],
  closers: Closers,
  graceMs: number,
): Promise<void> {
  health.shutdown();
  for (const { plugin, reflection } of listeners) {
    plugin.drain();
    reflection.shutdown();
  }
  await Promise.all(
    listeners.map(async ({ server, listener }) => {
      if (graceMs === 0) {
        listener.destroyConnections();
      }
      await drain(server, graceMs);
    }),
  );
  await closers.close();
}
