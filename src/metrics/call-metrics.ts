import { status } from "@grpc/grpc-js";
import type { FinishedCall } from "../rpc/handler.ts";
import {
  type Count,
  Counter,
  type Distribution,
  durationBounds,
  Gauge,
  Histogram,
} from "./series.ts";

/**
 * What is counted of the calls.
 *
 * Only one counter has the plugin as a label. With 50 plugins in a process the histogram would have
 * 50 times as many lines: of 10 methods with 3 codes each, 19 lines a distribution, 28,500.
 */
export class CallMetrics {
  readonly #durations = new Histogram({
    name: "plugin_state_rpc_duration_seconds",
    help: "Time from a request's arrival to its answer, by RPC and gRPC status code.",
    labelNames: ["method", "code"],
    bounds: durationBounds,
  });
  readonly #calls = new Counter({
    name: "plugin_state_plugin_calls_total",
    help: "Calls that were answered, by the plugin as the binding names it and by gRPC status code.",
    labelNames: ["plugin", "code"],
  });
  readonly #inFlight = new Gauge({
    name: "plugin_state_rpc_in_flight",
    help: "Calls that are being answered.",
  });
  readonly #connections = new Gauge({
    name: "plugin_state_rpc_connections",
    help: "Open connections of workers, on all listeners.",
  });
  readonly #refused = new Counter({
    name: "plugin_state_rpc_refused_total",
    help: "Requests that no RPC has seen, by gRPC status code: without a good token, too large, badly compressed, with a deadline that is none.",
    labelNames: ["code"],
  });
  readonly #flying = this.#inFlight.with();
  readonly #connected = this.#connections.with();
  /** By method and code: what {@link Histogram.with} gave. */
  readonly #byMethod = new Map<string, (Distribution | undefined)[]>();
  /** All of them, for the registry. */
  readonly all = [this.#durations, this.#calls, this.#inFlight, this.#connections, this.#refused];

  /** A call has come. */
  readonly started = (): void => {
    this.#flying.value += 1;
  };

  /** Makes what is told of the finished calls of a plugin. */
  finishedOf(plugin: string): (call: FinishedCall) => void {
    const byCode: (Count | undefined)[] = [];
    return ({ method, code, durationMs }) => {
      this.#flying.value -= 1;
      this.#duration(method, code).observe(durationMs / 1000);
      const count = byCode[code] ?? this.#calls.with(plugin, status[code]);
      byCode[code] = count;
      count.value += 1;
    };
  }

  /** A connection has opened, or closed. */
  readonly connection = (change: 1 | -1): void => {
    this.#connected.value += change;
  };

  /** A request was refused before an RPC saw it. */
  readonly refused = (code: status): void => {
    this.#refused.with(status[code]).value += 1;
  };

  #duration(method: string, code: status): Distribution {
    let byCode = this.#byMethod.get(method);
    if (byCode === undefined) {
      byCode = [];
      this.#byMethod.set(method, byCode);
    }
    const duration = byCode[code] ?? this.#durations.with(method, status[code]);
    byCode[code] = duration;
    return duration;
  }
}
