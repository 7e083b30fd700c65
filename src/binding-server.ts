import { isDeepStrictEqual } from "node:util";
import { status as Code, type Server } from "@grpc/grpc-js";
import { type BindHints, bindError } from "./bind-error.ts";
import { BoundPlugin } from "./bound-plugin.ts";
import { callLog } from "./call-log.ts";
import { isGuarded } from "./config/bindings.ts";
import type { BindingConfig, ServeConfig } from "./config/config.ts";
import type { DatabaseState } from "./database-state.ts";
import { file_google_rpc_error_details } from "./gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "./gen/google/rpc/status_pb.ts";
import { file_pluginstate_v1_errors } from "./gen/pluginstate/v1/errors_pb.ts";
import { pluginStateServiceCodec } from "./gen/pluginstate/v1/plugin_state_service_codec.ts";
import { PluginStateService } from "./gen/pluginstate/v1/plugin_state_service_pb.ts";
import { Guard } from "./guard.ts";
import type { Log } from "./log.ts";
import type { Observation } from "./observation.ts";
import type { Plugin } from "./postgres/plugins.ts";
import { refusalLog } from "./refusal-log.ts";
import type { Refusal } from "./rpc/connections.ts";
import { addUnaryService } from "./rpc/handler.ts";
import type { HealthService } from "./rpc/health.ts";
import { drain, ListenError, type Listener, listen } from "./rpc/listener.ts";
import { addReflection, type Reflection } from "./rpc/reflection.ts";
import { createGrpcServer } from "./rpc/server-options.ts";
import { overloaded } from "./service/overloaded.ts";
import { pluginStateHandlers } from "./service/plugin-state-service.ts";
import { completeStatus, statusOf } from "./service/status.ts";
import { PluginNotRegistered } from "./state/errors.ts";
import { maxTransactBytes, type StateBounds } from "./state/limits.ts";
import type { StateBackend } from "./state-backend.ts";
import { version } from "./version.ts";

/** Calls at once on one connection; a client holds back what is above it. */
const maxConcurrentStreams = 1024;
/** Beside two values of the largest size, or all of a Transact, a request may hold this much more. */
const requestSlackBytes = 1024 * 1024;

/** What every binding of a process is served with. */
export interface Surroundings {
  readonly config: ServeConfig;
  readonly log: Log;
  readonly health: HealthService;
  readonly database: DatabaseState;
  readonly watch: Observation;
}

/** What a host is told of a binding. */
export interface BindingAddress {
  /** The plugin's key; while it isn't registered, what the binding calls it. */
  readonly plugin: string;
  /** Null while it isn't registered. */
  readonly pluginId: string | null;
  readonly address: string;
}

/** One binding as it is served: a gRPC server of its own, at an address of its own. */
export class BindingServer {
  readonly #surroundings: Surroundings;
  readonly #log: Log;
  readonly #onRefused: (refusal: Refusal | "token") => void;
  readonly #plugin: BoundPlugin;
  readonly #guard: Guard;
  readonly #server: Server;
  readonly #reflection: Reflection;
  readonly #endHealthWatches: () => void;
  #lookAgain: () => void = () => undefined;
  /** Since it was last found. */
  #hasToldMissing = false;
  #config: BindingConfig;
  #listener: Listener | undefined;
  #isClosed = false;

  /** @throws {StartError} when its token or TLS files can't be used. */
  constructor(config: BindingConfig, surroundings: Surroundings) {
    const { config: serve, log, health, database, watch } = surroundings;
    this.#surroundings = surroundings;
    this.#config = config;
    this.#log = log.child({ plugin: config.plugin });
    this.#onRefused = refusalLog(this.#log);
    this.#plugin = new BoundPlugin({
      version,
      name: config.plugin,
      bounds: boundsOf(config, serve),
      permissions: config.permissions,
      problem: () => database.problem,
    });
    this.#guard = new Guard(config, {
      log: this.#log,
      isOpen: isOpenToAll,
      onRefused: () => {
        this.#onRefused("token");
        watch.onRefused?.(Code.UNAUTHENTICATED);
      },
    });
    const { maxValueBytes } = boundsOf(config, serve);
    this.#server = createGrpcServer({
      maxReceiveBytes: Math.max(2 * maxValueBytes, maxTransactBytes) + requestSlackBytes,
      maxSendBytes: -1,
      maxConcurrentStreams,
      maxCallMs: serve.maxCallMs,
      interceptors: this.#guard.interceptors,
      completeStatus: watch.statuses(completeStatus),
      overloaded,
      onRefused: this.#onRefused,
    });
    const handlers = pluginStateHandlers(this.#plugin);
    addUnaryService(this.#server, PluginStateService, pluginStateServiceCodec, handlers, {
      toStatus: (error) => {
        // It may be installed anew by now, with another id.
        if (error instanceof PluginNotRegistered) this.#lookAgain();
        return statusOf(error);
      },
      overloaded,
      maxCallMs: serve.maxCallMs,
      waitsFor: () => this.#plugin.waiting,
      ...watch.calls(config.plugin, callLog(this.#log, serve.slowCallMs)),
    });
    // Here the service is this binding's.
    const aliases = new Map([[PluginStateService.typeName, pluginService(config.plugin)]]);
    this.#endHealthWatches = health.addTo(this.#server, aliases);
    this.#reflection = addReflection(this.#server, describedFiles, [PluginStateService.typeName]);
  }

  get config(): BindingConfig {
    return this.#config;
  }

  /** The id of its plugin; undefined while that isn't known to be registered. */
  get pluginId(): string | undefined {
    return this.#plugin.found?.id;
  }

  /** Whether it has ended, or begun to. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** What a host is told. */
  get address(): BindingAddress {
    const { id: pluginId, key: plugin } = this.#plugin.found ?? {
      id: null,
      key: this.#config.plugin,
    };
    return { plugin, pluginId, address: this.#listener?.address ?? "" };
  }

  /** Accepts connections; again after {@link stopAccepting}. @throws {StartError} when it can't. */
  async open(): Promise<void> {
    const { config, watch } = this.#surroundings;
    const credentials = this.#guard.credentials;
    try {
      this.#listener = await listen(this.#server, this.#config.listen, {
        loopbackOnly: !config.insecure && !isGuarded(this.#config),
        onAcceptError: (error) => this.#log.error({ err: error }, "can't accept connections"),
        onConnection: watch.onConnection,
        maxConnections: config.maxConnections,
        onRefused: this.#onRefused,
        ...(credentials === undefined ? {} : { credentials }),
      });
    } catch (error) {
      throw error instanceof ListenError ? bindError(error, bindHints) : error;
    }
    this.#guard.watchFiles();
  }

  /** Serves what the registry has for its plugin; undefined: it hasn't got it. */
  follow(plugin: Plugin | undefined, backend: StateBackend): void {
    const before = this.#plugin.found;
    if (this.#isClosed) return;
    if (plugin === undefined) {
      this.#miss();
      return;
    }
    this.#plugin.bind(plugin, (bounds) => backend.store(plugin, bounds));
    this.#hasToldMissing = false;
    if (plugin.id !== before?.id) {
      const { id: pluginId, key } = plugin;
      this.#log.info({ pluginId, key, before: before?.id }, "the plugin is served");
    }
  }

  #miss(): void {
    this.#plugin.missing();
    if (this.#hasToldMissing) return;
    this.#hasToldMissing = true;
    const hint = `Let the host install it, or register it: plugin-state plugin add ${this.#config.plugin}`;
    this.#log.warn({ hint }, "the plugin isn't registered: its calls fail until it is");
  }

  /** Has calls look again by this which plugin they are for, when they find none, or that it's gone. */
  lookBy(look: () => Promise<void>): void {
    this.#lookAgain = () => void look();
    this.#plugin.lookBy(look);
  }

  /** The database is away, and can't say which plugin calls are for: they needn't wait for it. */
  away(): void {
    this.#plugin.away();
  }

  /** Whether {@link update} can make it serve as another configuration says; else it takes a new one. */
  fits(next: BindingConfig): boolean {
    const { config } = this.#surroundings;
    const now = this.#config;
    return (
      now.plugin === next.plugin &&
      isDeepStrictEqual(now.listen, next.listen) &&
      isDeepStrictEqual(now.tls, next.tls) &&
      (now.tokens === undefined) === (next.tokens === undefined) &&
      boundsOf(now, config).maxValueBytes === boundsOf(next, config).maxValueBytes
    );
  }

  /** Serves as another configuration says, without anybody's call or connection noticing. @throws {StartError} */
  update(next: BindingConfig): void {
    this.#guard.update(next);
    this.#plugin.allow(next.permissions, boundsOf(next, this.#surroundings.config));
    this.#config = next;
  }

  /** Accepts no connections any more; those that are open stay. */
  async stopAccepting(): Promise<void> {
    await this.#listener?.close();
  }

  /** Lets calls in flight finish, for so long, and ends. With 0 cuts everything. */
  async close(graceMs: number): Promise<void> {
    this.#isClosed = true;
    this.#reflection.shutdown();
    this.#endHealthWatches();
    if (graceMs === 0) {
      this.#listener?.destroyConnections();
    }
    await drain(this.#server, graceMs);
    this.#plugin.drain();
    this.#guard.close();
  }
}

/** What health calls the binding of a plugin. */
export function pluginService(plugin: string): string {
  return `plugin/${plugin}`;
}

/** What reflection describes beside health and itself: our service, and what its errors hold. */
const describedFiles = [
  PluginStateService.file,
  file_pluginstate_v1_errors,
  file_google_rpc_status,
  file_google_rpc_error_details,
];

/** Health is for probes, which have no token; reflection tells what this page's proto does. */
function isOpenToAll(path: string): boolean {
  return !path.startsWith(`/${PluginStateService.typeName}/`);
}

function boundsOf(binding: BindingConfig, { bounds }: ServeConfig): StateBounds {
  return { ...bounds, ...binding.bounds };
}

const bindHints: BindHints = {
  notLoopback:
    "Listen on 127.0.0.1, ::1 or a unix socket; or serve TLS and demand a token or client certificates; or allow it with --insecure.",
  otherwise: "Give another address with --listen; port 0 lets the system choose one.",
};
