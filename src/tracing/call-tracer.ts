import { type Metadata, status } from "@grpc/grpc-js";
import type { TextMapGetter, Tracer } from "@opentelemetry/api";
import type { CallTracer } from "../rpc/handler.ts";
import type { OpenTelemetry } from "./tracing.ts";

/** Codes that OpenTelemetry's conventions call a server's error; the others may be the caller's. */
const serverErrors: ReadonlySet<status> = new Set([
  status.UNKNOWN,
  status.DEADLINE_EXCEEDED,
  status.UNIMPLEMENTED,
  status.INTERNAL,
  status.UNAVAILABLE,
  status.DATA_LOSS,
]);

const metadataGetter: TextMapGetter<Metadata> = {
  keys: (metadata) => Object.keys(metadata.getMap()),
  get: (metadata, key) => {
    const values = metadata.get(key).filter((value) => typeof value === "string");
    return values.length === 0 ? undefined : values.join(",");
  },
};

/**
 * A SERVER span for each call, below the span that the worker names in its metadata (`traceparent`, or
 * whatever the SDK's propagator reads). Nothing of the request or of the error is in it.
 */
export function callTracer(
  { context, propagation, trace, ROOT_CONTEXT, SpanKind, SpanStatusCode }: OpenTelemetry,
  tracer: Tracer,
): CallTracer {
  return {
    start(service, method, metadata) {
      const parent = propagation.extract(ROOT_CONTEXT, metadata, metadataGetter);
      const attributes = { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method };
      const options = { kind: SpanKind.SERVER, attributes };
      const span = tracer.startSpan(`${service}/${method}`, options, parent);
      return {
        traceId: span.spanContext().traceId,
        run: (handle) => context.with(trace.setSpan(parent, span), handle),
        ended: (code) => {
          span.setAttribute("rpc.grpc.status_code", code);
          if (serverErrors.has(code)) {
            span.setAttribute("error.type", status[code]);
            span.setStatus({ code: SpanStatusCode.ERROR });
          }
          span.end();
        },
      };
    },
  };
}
