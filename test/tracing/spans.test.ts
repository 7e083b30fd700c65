import { create, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import {
  type Context,
  context,
  propagation,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
} from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  SamplingDecision,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { GetRequestSchema } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { failure } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { holdWrites } from "../support/hold-writes.ts";
import { anyPort, scrape } from "../support/metrics.ts";
import { FaultProxy } from "../support/proxy.ts";
import { type TestSidecar, testSidecar } from "../support/sidecar.ts";

/** For what happens at once, but on a busy machine not. */
const soon = { timeout: 20_000 };
const scope = { kind: ScopeKind.INSTANCE };
const service = "pluginstate.v1.PluginStateService";

/** As much of W3C's propagator as reads what workers send. */
const traceparentReader = {
  inject: () => undefined,
  fields: () => ["traceparent"],
  extract(parent: Context, carrier: unknown, getter: TextMapGetter): Context {
    const [, traceId = "", spanId = "", flags = ""] = String(
      getter.get(carrier, "traceparent"),
    ).split("-");
    const remote = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
    return traceId === "" ? parent : trace.setSpanContext(parent, remote);
  },
};

/** Samples by what the test says. */
const sampler: Sampler & { samples: boolean } = {
  samples: true,
  shouldSample() {
    const { NOT_RECORD, RECORD_AND_SAMPLED } = SamplingDecision;
    return { decision: this.samples ? RECORD_AND_SAMPLED : NOT_RECORD };
  },
};

const exporter = new InMemorySpanExporter();
let database: TestDatabase;
let served: TestSidecar;

beforeAll(async () => {
  trace.setGlobalTracerProvider(
    new BasicTracerProvider({
      sampler: new ParentBasedSampler({ root: sampler }),
      spanProcessors: [new SimpleSpanProcessor(exporter)],
    }),
  );
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(traceparentReader);
  database = await testDatabase();
  served = await testSidecar(database, ["demo"], { metricsListen: anyPort });
});

afterAll(async () => {
  await served[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  trace.disable();
  context.disable();
  propagation.disable();
});

beforeEach(() => {
  exporter.reset();
  sampler.samples = true;
});

const named = (name: string): ReadableSpan[] =>
  exporter.getFinishedSpans().filter((span) => span.name === name);

const idOf = (span: ReadableSpan | undefined): SpanContext | undefined => span?.spanContext();

/** A Get with metadata of its own. */
function get(key: string, metadata: Metadata): Promise<void> {
  const client = new Client(served.address, credentials.createInsecure());
  return new Promise<void>((resolve, reject) => {
    const request = Buffer.from(
      toBinary(GetRequestSchema, create(GetRequestSchema, { scope, key })),
    );
    const asIs = (bytes: Buffer) => bytes;
    client.makeUnaryRequest(`/${service}/Get`, asIs, asIs, request, metadata, (error) =>
      error ? reject(error) : resolve(),
    );
  }).finally(() => client.close());
}

test("a call is a SERVER span below the worker's, and its statement a CLIENT span below it", async () => {
  const metadata = new Metadata();
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  metadata.set("traceparent", `00-${traceId}-b7ad6b7169203331-01`);
  await get("k", metadata);

  const [call] = named(`${service}/Get`);
  expect(call).toMatchObject({
    kind: SpanKind.SERVER,
    parentSpanContext: { traceId, spanId: "b7ad6b7169203331" },
    status: { code: SpanStatusCode.UNSET },
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": service,
      "rpc.method": "Get",
      "rpc.grpc.status_code": 0,
    },
  });
  const [statement] = named("read_entry");
  expect(statement).toMatchObject({
    kind: SpanKind.CLIENT,
    links: [],
    parentSpanContext: { traceId, spanId: idOf(call)?.spanId },
    attributes: { "db.system.name": "postgresql", "db.operation.name": "read_entry" },
  });
});

test("every statement of a DeleteRange is below its call", async () => {
  await served.client.call("deleteRange", { scope, namespace: "n" });
  const [call] = named(`${service}/DeleteRange`);
  expect(named("delete_range").map(({ parentSpanContext }) => parentSpanContext?.spanId)).toEqual([
    idOf(call)?.spanId,
  ]);
});

test("a batch's statement is a trace of its own, linked to its calls and to no others", async () => {
  const held = await holdWrites(database);
  const first = served.client.call("set", { scope, key: "first", valueJson: "0" });
  await held.areWaiting(1);
  const others = Array.from({ length: 5 }, (_, at) =>
    served.client.call("set", { scope, key: `k${at}`, valueJson: "1" }),
  );
  const waiting = async () =>
    (await scrape(served.sidecar.metrics)).value("plugin_state_lane_waiting_calls", {
      lane: "writes",
    });
  await expect.poll(waiting, soon).toBe(5);
  await held.release();
  await Promise.all([first, ...others]);

  const calls = named(`${service}/Set`).map((span) => idOf(span)?.spanId);
  const [alone, batch] = named("set_entries");
  expect(calls).toHaveLength(6);
  expect(alone?.links).toEqual([]);
  expect(calls).toContain(alone?.parentSpanContext?.spanId);
  expect(batch?.parentSpanContext).toBeUndefined();
  expect(batch?.attributes["db.operation.batch.size"]).toBe(5);
  const linked = batch?.links.map((link) => link.context.spanId) ?? [];
  expect([...linked, alone?.parentSpanContext?.spanId].toSorted()).toEqual(calls.toSorted());
});

test("calls that aren't sampled leave no spans, in a batch neither", async () => {
  sampler.samples = false;
  await Promise.all(
    Array.from({ length: 10 }, (_, at) =>
      served.client.call("set", { scope, key: `k${at}`, valueJson: "1" }),
    ),
  );
  expect(exporter.getFinishedSpans()).toEqual([]);
});

test("what the sidecar asks the database for itself makes no spans", async () => {
  const asked = async () =>
    (await scrape(served.sidecar.metrics)).value("plugin_state_statement_duration_seconds_count", {
      statement: "sweep",
    }) ?? 0;
  const before = await asked();
  await expect.poll(asked, soon).toBeGreaterThan(before);
  expect(exporter.getFinishedSpans()).toEqual([]);
});

test("a refused call has its code, and nothing of what was refused", async () => {
  await failure(served.client.call("set", { scope, key: "s3cret", valueJson: '{"s3cret"' }));
  const [call] = named(`${service}/Set`);
  expect(call?.attributes["rpc.grpc.status_code"]).toBe(3);
  expect(call?.status.code).toBe(SpanStatusCode.UNSET);
  expect(call?.events).toEqual([]);
});

test("a lost database is an error of the statement and of the call, with no text of it", async () => {
  await using proxy = await FaultProxy.before(database.url);
  const url = proxy.through(database.url);
  await using other = await testSidecar(database, ["demo"], {
    database: { kind: "url", url },
  });
  proxy.cutBefore("read_entry", () => void proxy.close());
  await failure(other.client.call("get", { scope, key: "s3cret" }));

  const [statement] = named("read_entry");
  const [call] = named(`${service}/Get`);
  expect(statement?.status).toEqual({ code: SpanStatusCode.ERROR });
  expect(statement?.attributes["error.type"]).toBe("connection");
  expect(call?.status).toEqual({ code: SpanStatusCode.ERROR });
  expect(call?.attributes["error.type"]).toBe("UNAVAILABLE");
});

test("no attribute, event or name of any span holds a value, key, scope id or namespace", async () => {
  const secret = "s3cret";
  const name = { scope: { kind: ScopeKind.RUN, id: secret }, namespace: secret, key: secret };
  await served.client.call("set", { ...name, valueJson: `"${secret}"` });
  await served.client.call("get", name);
  await served.client.call("batchGet", { names: [name] });
  await served.client.call("list", { scope: name.scope, namespace: secret, prefix: secret });
  const told = exporter
    .getFinishedSpans()
    .map(({ name, attributes, events, status }) => ({ name, attributes, events, status }));
  expect(told.length).toBeGreaterThan(5);
  expect(JSON.stringify(told)).not.toContain(secret);
});
