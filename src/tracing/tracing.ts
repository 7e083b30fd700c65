import type * as Api from "@opentelemetry/api";
import type { LaneTracer, StatementObserver } from "../postgres/observer.ts";
import type { CallTracer } from "../rpc/handler.ts";
import { callTracer } from "./call-tracer.ts";
import { laneTracer } from "./lane-tracer.ts";
import { statementTracer } from "./statement-tracer.ts";

/** Who makes the spans. */
export interface Tracing {
  readonly calls: CallTracer;
  readonly lanes: LaneTracer;
  readonly statements: StatementObserver;
}

/** OpenTelemetry's API, as loaded. */
export type OpenTelemetry = typeof Api;

/** Where OpenTelemetry's API, of any version 1, keeps what an SDK registered. */
const registered = Symbol.for("opentelemetry.js.api.1");

/**
 * Makes tracers for the OpenTelemetry SDK that was loaded before this program (`node --import`), or
 * nothing when there is none: then the API isn't even loaded.
 */
export async function loadTracing(version: string): Promise<Tracing | undefined> {
  const found: unknown = Reflect.get(globalThis, registered);
  if (typeof found !== "object" || found === null || !("trace" in found)) {
    return undefined;
  }
  const api = await import("@opentelemetry/api");
  const tracer = api.trace.getTracer("plugin-state-sidecar", version);
  return {
    calls: callTracer(api, tracer),
    lanes: laneTracer(api),
    statements: statementTracer(api, tracer),
  };
}
