import type { LaneObserver } from "../postgres/observer.ts";
import { Counter, durationBounds, Gauge, Histogram } from "./series.ts";

/** The lanes that each plugin has. */
export type LaneName = "reads" | "writes" | "scans";

/** What is counted of the lanes: of each name together, whichever plugin's they are. */
export class LaneMetrics {
  readonly #batches = new Histogram({
    name: "plugin_state_lane_batch_calls",
    help: "Calls in each batch that was sent, by lane.",
    labelNames: ["lane"],
    bounds: [1, 2, 4, 8, 16, 32, 64, 128],
  });
  readonly #waits = new Histogram({
    name: "plugin_state_lane_wait_seconds",
    help: "Time that a call waited in its lane for a batch, by lane.",
    labelNames: ["lane"],
    bounds: durationBounds,
  });
  readonly #waitingCalls = new Gauge({
    name: "plugin_state_lane_waiting_calls",
    help: "Calls that wait for a batch, by lane, of all plugins together.",
    labelNames: ["lane"],
  });
  readonly #waitingBytes = new Gauge({
    name: "plugin_state_lane_waiting_bytes",
    help: "Bytes of the calls that wait for a batch, by lane, of all plugins together.",
    labelNames: ["lane"],
  });
  readonly #refused = new Counter({
    name: "plugin_state_lane_refused_calls_total",
    help: "Calls refused as OVERLOADED because too much was waiting, by lane.",
    labelNames: ["lane"],
  });
  /** All of them, for the registry. */
  readonly all = [
    this.#batches,
    this.#waits,
    this.#waitingCalls,
    this.#waitingBytes,
    this.#refused,
  ];
  readonly reads = this.#observerOf("reads");
  readonly writes = this.#observerOf("writes");
  readonly scans = this.#observerOf("scans");

  #observerOf(lane: LaneName): LaneObserver {
    const batches = this.#batches.with(lane);
    const waits = this.#waits.with(lane);
    const waitingCalls = this.#waitingCalls.with(lane);
    const waitingBytes = this.#waitingBytes.with(lane);
    const refused = this.#refused.with(lane);
    return {
      entered: (bytes) => {
        waitingCalls.value += 1;
        waitingBytes.value += bytes;
        return performance.now();
      },
      left: (bytes, enteredAt) => {
        waitingCalls.value -= 1;
        waitingBytes.value -= bytes;
        waits.observe((performance.now() - enteredAt) / 1000);
      },
      refused: () => {
        refused.value += 1;
      },
      sent: (calls) => batches.observe(calls),
    };
  }
}
