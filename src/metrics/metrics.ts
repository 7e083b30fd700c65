import { collectDefaultMetrics, type Metric, Registry } from "prom-client";
import { BindingMetrics } from "./binding-metrics.ts";
import { CallMetrics } from "./call-metrics.ts";
import { DatabaseMetrics } from "./database-metrics.ts";
import { LaneMetrics } from "./lane-metrics.ts";
import { Gauge, type ReadableMetric } from "./series.ts";
import { StatementMetrics } from "./statement-metrics.ts";

/** Every metric of the process. docs/metrics.md lists them; a test compares. */
export class Metrics {
  readonly calls = new CallMetrics();
  readonly statements = new StatementMetrics();
  readonly lanes = new LaneMetrics();
  readonly database = new DatabaseMetrics();
  readonly bindings = new BindingMetrics();
  readonly #registry = new Registry();

  constructor(version: string) {
    const build = new Gauge({
      name: "plugin_state_build_info",
      help: "Always 1; the label has the sidecar's version.",
      labelNames: ["version"],
    });
    build.with(version).value = 1;
    const parts = [this.calls, this.statements, this.lanes, this.database, this.bindings];
    for (const metric of [build, ...parts.flatMap(({ all }): ReadableMetric[] => all)]) {
      // The registry asks a metric for its name and `get` only; the type names prom-client's classes.
      this.#registry.registerMetric(metric as unknown as Metric);
    }
    collectDefaultMetrics({ register: this.#registry });
  }

  /** The media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All of them now, in Prometheus' text format. */
  async text(): Promise<string> {
    return await this.#registry.metrics();
  }
}
