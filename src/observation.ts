import { status as Code } from "@grpc/grpc-js";
import { type BindHints, bindError } from "./bind-error.ts";
import { bothStatements } from "./both-statements.ts";
import type { Closers } from "./closers.ts";
import type { ServeConfig } from "./config/config.ts";
import type { Log } from "./log.ts";
import type { LaneName } from "./metrics/lane-metrics.ts";
import type { Metrics } from "./metrics/metrics.ts";
import type { LaneObserver, LaneTracer, StatementObserver } from "./postgres/observer.ts";
import type { CallTracer, FinishedCall } from "./rpc/handler.ts";
import { ListenError } from "./rpc/listen-error.ts";
import type { OutgoingStatus } from "./rpc/outgoing-status.ts";
import { loadTracing, type Tracing } from "./tracing/tracing.ts";
import { version } from "./version.ts";

/**
 * Who watches this process: metrics if they are asked for, spans if an SDK is there. Each part of the
 * program is given its share, and undefined where nobody watches.
 */
export class Observation {
  /** Where metrics are served; undefined when they aren't. */
  readonly address: string | undefined;
  readonly #metrics: Metrics | undefined;
  readonly #tracing: Tracing | undefined;

  constructor(
    watched: { readonly metrics: Metrics; readonly address: string } | undefined,
    tracing: Tracing | undefined,
  ) {
    this.address = watched?.address;
    this.#metrics = watched?.metrics;
    this.#tracing = tracing;
  }

  /** For the RPCs of one binding; `log` is told of every finished call too. */
  calls(plugin: string, log: (call: FinishedCall) => void): CallWatch {
    const count = this.#metrics?.calls.finishedOf(plugin);
    return {
      tracer: this.#tracing?.calls,
      onStarted: this.#metrics?.calls.started,
      onFinished:
        count === undefined
          ? log
          : (call) => {
              count(call);
              log(call);
            },
    };
  }

  /** For a listener: told of connections. */
  get onConnection(): ((change: 1 | -1) => void) | undefined {
    return this.#metrics?.calls.connection;
  }

  /**
   * For the statuses of a listener: counts those that no RPC sent, which `complete` completes.
   *
   * Of calls whose time is over, or that were cancelled, an RPC may have seen the request: it tells.
   */
  statuses(complete: Complete): Complete {
    const refused = this.onRefused;
    if (refused === undefined) {
      return complete;
    }
    return (status) => {
      const completed = complete(status);
      const code = completed.code ?? Code.UNKNOWN;
      if (completed !== status && !endedByClient.has(code)) {
        refused(code);
      }
      return completed;
    };
  }

  /** For whoever refuses requests before an RPC sees them. */
  get onRefused(): ((code: Code) => void) | undefined {
    return this.#metrics?.calls.refused;
  }

  /** For the pool. */
  get statements(): StatementObserver | undefined {
    return bothStatements(this.#metrics?.statements, this.#tracing?.statements);
  }

  /** For a lane. */
  lane(name: LaneName): LaneWatch {
    return { observer: this.#metrics?.lanes[name], tracer: this.#tracing?.lanes };
  }

  /** The bindings' part of the metrics. */
  get bindings(): Metrics["bindings"] | undefined {
    return this.#metrics?.bindings;
  }

  /** The database's part of the metrics. */
  get database(): Metrics["database"] | undefined {
    return this.#metrics?.database;
  }
}

type Complete = (status: OutgoingStatus) => OutgoingStatus;

interface CallWatch {
  readonly tracer: CallTracer | undefined;
  readonly onStarted: (() => void) | undefined;
  readonly onFinished: (call: FinishedCall) => void;
}

interface LaneWatch {
  readonly observer: LaneObserver | undefined;
  readonly tracer: LaneTracer | undefined;
}

const endedByClient: ReadonlySet<Code> = new Set([Code.CANCELLED, Code.DEADLINE_EXCEEDED]);

/**
 * Starts what watches.
 *
 * @param serves Whether calls would be served now, for `/healthz`.
 * @throws {StartError} when the address for metrics can't be bound.
 */
export async function observe(
  config: ServeConfig,
  log: Log,
  closers: Closers,
  serves: () => boolean,
): Promise<Observation> {
  const tracing = await loadTracing(version);
  if (tracing !== undefined) {
    log.info("an OpenTelemetry SDK is loaded: making spans");
  }
  return new Observation(await startMetrics(config, log, closers, serves), tracing);
}

async function startMetrics(
  { metricsListen, insecure }: ServeConfig,
  log: Log,
  closers: Closers,
  serves: () => boolean,
) {
  if (metricsListen === undefined) {
    return undefined;
  }
  const { Metrics } = await import("./metrics/metrics.ts");
  const { serveMetrics } = await import("./metrics/metrics-server.ts");
  const metrics = new Metrics(version);
  const source = {
    contentType: metrics.contentType,
    text: () => metrics.text(),
    serves,
    onError: (error: unknown) => log.error({ err: error }, "can't serve metrics"),
  };
  try {
    const options = { address: metricsListen, loopbackOnly: !insecure };
    const server = await serveMetrics(source, options);
    closers.add(() => server.close());
    log.info({ address: server.address }, "serving metrics");
    return { metrics, address: server.address };
  } catch (error) {
    throw error instanceof ListenError ? bindError(error, bindHints) : error;
  }
}

const bindHints: BindHints = {
  prefix: "Metrics",
  notLoopback:
    "Serve metrics on 127.0.0.1, ::1 or a unix socket, or allow other addresses with --insecure.",
  otherwise: "Give another address with --metrics-listen; port 0 lets the system choose one.",
};
