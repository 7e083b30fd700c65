// Preloaded with `node --import`: an OpenTelemetry SDK that writes each span as a JSON line on stderr.
import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const lines = {
  export(spans, done) {
    for (const span of spans) {
      const { name, attributes, parentSpanContext: parent } = span;
      const { traceId } = span.spanContext();
      console.error(JSON.stringify({ span: name, traceId, attributes, parent: parent?.spanId }));
    }
    done({ code: 0 });
  },
  shutdown: async () => undefined,
};

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(lines)] }),
);
