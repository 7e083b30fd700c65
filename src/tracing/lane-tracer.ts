import type { Context, Link } from "@opentelemetry/api";
import type { LaneTracer } from "../postgres/observer.ts";
import { batchKey } from "./batch.ts";
import type { OpenTelemetry } from "./tracing.ts";

/**
 * Takes the context of calls through the lane. What is done for one call belongs to its span. What is
 * done for several belongs to none of them: it is linked to all that are sampled, and a trace of its own.
 */
export function laneTracer({
  context,
  trace,
  ROOT_CONTEXT,
  TraceFlags,
}: OpenTelemetry): LaneTracer {
  /** The context that a batch runs in. */
  function contextOf(origins: readonly Context[]): Context {
    const [only] = origins;
    if (only !== undefined && origins.length === 1) {
      return only;
    }
    const links: Link[] = [];
    for (const origin of origins) {
      const call = trace.getSpanContext(origin);
      if (call !== undefined && (call.traceFlags & TraceFlags.SAMPLED) !== 0) {
        links.push({ context: call });
      }
    }
    return ROOT_CONTEXT.setValue(batchKey, { calls: origins.length, links });
  }

  return {
    origin: () => context.active(),
    run: (origins, work) =>
      // Each is what `origin` returned.
      context.with(contextOf(origins as readonly Context[]), work),
  };
}
