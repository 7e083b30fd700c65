// @ts-check
// What watching adds to a call: npm run build && node bench/watched.js. All that is told of a Get, with 64
// of them in a batch: that it came, waited, went and was answered, and a 64th of its statement. The best of
// nine rounds of each. (Loading a whole sidecar doesn't show it: the rounds differ by more.)

import { Metadata } from "@grpc/grpc-js";
import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BasicTracerProvider,
} from "@opentelemetry/sdk-trace-base";

/** @import { Sampler } from "@opentelemetry/sdk-trace-base" */
/** @import { Observation as Watch } from "../src/observation.ts" */

/** @type {Pick<typeof import("../src/observation.ts"), "Observation">} */
const { Observation } = await import(new URL("../dist/observation.js", import.meta.url).href);
/** @type {Pick<typeof import("../src/metrics/metrics.ts"), "Metrics">} */
const { Metrics } = await import(new URL("../dist/metrics/metrics.js", import.meta.url).href);
/** @type {Pick<typeof import("../src/tracing/tracing.ts"), "loadTracing">} */
const { loadTracing } = await import(new URL("../dist/tracing/tracing.js", import.meta.url).href);

const batches = 2_000;
const callsInBatch = 64;
const metadata = new Metadata();
const service = "pluginstate.v1.PluginStateService";
/** Made once for a binding. @type {Map<Watch, ReturnType<Watch["calls"]>>} */
const made = new Map();

await measure("nobody", new Observation(undefined, undefined));
await measure("metrics", new Observation({ metrics: new Metrics("0"), address: "" }, undefined));
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
await measure(
  "spans, no call sampled",
  new Observation(undefined, await tracing(new AlwaysOffSampler())),
);
await measure(
  "spans of every call",
  new Observation(undefined, await tracing(new AlwaysOnSampler())),
);

/** @param {Sampler} sampler */
async function tracing(sampler) {
  trace.disable();
  trace.setGlobalTracerProvider(new BasicTracerProvider({ sampler }));
  return await loadTracing("0");
}

/** @param {string} name @param {Watch} watch */
async function measure(name, watch) {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 9; round++) {
    const before = process.cpuUsage();
    for (let batch = 0; batch < batches; batch++) await oneBatch(watch);
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, (user + system) / batches / callsInBatch);
  }
  console.log(`watched by ${name}: ${best.toFixed(2)} µs a call`);
}

/** What rpc/handler.ts, postgres/lane.ts and postgres/pool.ts tell of 64 Gets. @param {Watch} watch */
async function oneBatch(watch) {
  const { tracer, onStarted, onFinished } = watchOf(watch);
  const { observer, tracer: lanes } = watch.lane("reads");
  const calls = Array.from({ length: callsInBatch }, () => {
    onStarted?.();
    const span = tracer?.start(service, "Get", metadata);
    const enter = async () => ({ at: observer?.entered(0) ?? 0, origin: lanes?.origin() });
    return { span, entered: span === undefined ? enter() : span.run(enter) };
  });
  const entered = await Promise.all(calls.map((call) => call.entered));
  for (const { at } of entered) observer?.left(0, at);
  observer?.sent(callsInBatch);
  const statement = async () => {
    const sent = watch.statements?.waits("read_place");
    sent?.sent();
    sent?.ended();
  };
  const origins = entered.map(({ origin }) => origin);
  await (lanes === undefined ? statement() : lanes.run(origins, statement, []));
  for (const { span } of calls) {
    onFinished({ method: "Get", durationMs: 2, code: 0, traceId: span?.traceId });
    span?.ended(0);
  }
}

/** @param {Watch} watch */
function watchOf(watch) {
  const found = made.get(watch) ?? watch.calls("bench", () => undefined);
  made.set(watch, found);
  return found;
}
