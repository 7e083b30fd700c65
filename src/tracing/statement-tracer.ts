import type { Attributes, Span, Tracer } from "@opentelemetry/api";
import type { StatementObserver, WatchedStatement } from "../postgres/observer.ts";
import { type Batch, batchKey } from "./batch.ts";
import type { OpenTelemetry } from "./tracing.ts";

/**
 * A CLIENT span for each statement that calls are waiting for; those that the sidecar sends for itself
 * (the monitor's, the sweeper's) have none. Its name is that of the statement, not its text.
 */
export function statementTracer(api: OpenTelemetry, tracer: Tracer): StatementObserver {
  const { context, trace, SpanKind } = api;

  /** Undefined when nobody's trace would hold it. */
  function startSpan(statement: string): Span | undefined {
    const active = context.active();
    const kind = SpanKind.CLIENT;
    const attributes: Attributes = {
      "db.system.name": "postgresql",
      "db.operation.name": statement,
    };
    // It was put there by lane-tracer.ts.
    const batch = active.getValue(batchKey) as Batch | undefined;
    if (batch === undefined) {
      return trace.getSpan(active) && tracer.startSpan(statement, { kind, attributes }, active);
    }
    if (batch.links.length === 0) {
      return undefined;
    }
    attributes["db.operation.batch.size"] = batch.calls;
    const links = [...batch.links];
    return tracer.startSpan(statement, { kind, attributes, links, root: true }, active);
  }

  return {
    waits: (statement) => new TracedStatement(api, () => startSpan(statement)),
  };
}

class TracedStatement implements WatchedStatement {
  readonly #api: OpenTelemetry;
  readonly #start: () => Span | undefined;
  #span: Span | undefined;

  constructor(api: OpenTelemetry, start: () => Span | undefined) {
    this.#api = api;
    this.#start = start;
  }

  sent(): void {
    this.#span = this.#start();
  }

  ended(): void {
    this.#span?.end();
  }

  failed(sqlState: string): void {
    const span = this.#span;
    if (sqlState !== "") {
      span?.setAttribute("db.response.status_code", sqlState);
    }
    span?.setAttribute("error.type", sqlState === "" ? "connection" : sqlState);
    span?.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    span?.end();
  }
}
