import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { Metrics } from "../../src/metrics/metrics.ts";
import { withClient } from "../../src/postgres/connection.ts";
import { Lane } from "../../src/postgres/lane.ts";
import { Overloaded } from "../../src/state/errors.ts";
import { failure, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { holdWrites } from "../support/hold-writes.ts";
import { anyPort, parseScrape, scrape } from "../support/metrics.ts";
import { FaultProxy } from "../support/proxy.ts";
import { configFor, testSidecar } from "../support/sidecar.ts";

const scope = { kind: ScopeKind.INSTANCE };
const name = { scope, key: "k" };
/** For what happens at once, but on a busy machine not. */
const soon = { timeout: 20_000 };
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterAll(() => database[Symbol.asyncDispose]());

test("calls are timed by method and code, and counted by the binding's plugin", async () => {
  await using served = await testSidecar(database, ["one", "two"], { metricsListen: anyPort });
  const [one, two] = served.clients;
  await one!.call("set", { ...name, valueJson: "1" });
  await one!.call("get", name);
  await two!.call("get", name);
  await failure(two!.call("set", { ...name, valueJson: "{" }));

  const { value } = await scrape(served.sidecar.metrics);

  const duration = "plugin_state_rpc_duration_seconds";
  expect(value(`${duration}_count`, { method: "Get", code: "OK" })).toBe(2);
  expect(value(`${duration}_bucket`, { method: "Get", le: "+Inf" })).toBe(2);
  expect(value(`${duration}_sum`, { method: "Get" })).toBeGreaterThan(0);
  expect(value(`${duration}_count`, { method: "Set", code: "INVALID_ARGUMENT" })).toBe(1);
  const calls = "plugin_state_plugin_calls_total";
  expect(value(calls, { plugin: "one", code: "OK" })).toBe(2);
  expect(value(calls, { plugin: "two", code: "OK" })).toBe(1);
  expect(value(calls, { plugin: "two", code: "INVALID_ARGUMENT" })).toBe(1);
  expect(value("plugin_state_rpc_in_flight")).toBe(0);
});

test("what grpc refuses before an RPC sees it is counted apart", async () => {
  const bounds = { maxValueBytes: 1024, rememberRequestsMs: 1000, quotaEntries: undefined };
  await using served = await testSidecar(database, ["one"], {
    metricsListen: anyPort,
    bounds: { ...bounds, quotaBytes: undefined },
  });
  const tooLarge = await failure(served.client.send("set", Buffer.alloc(20 * 1024 * 1024)));
  expect(tooLarge.code).toBe(status.RESOURCE_EXHAUSTED);

  const { value } = await scrape(served.sidecar.metrics);

  expect(value("plugin_state_rpc_refused_total", { code: "RESOURCE_EXHAUSTED" })).toBe(1);
  expect(value("plugin_state_rpc_duration_seconds_count", { method: "Set" })).toBeUndefined();
});

test("a call without a good token is counted, and of no plugin", async () => {
  const configured = configFor(database.url, ["demo"]).bindings;
  const tokens = { kind: "text", token: "a-token-0123456789", name: "TOKEN" } as const;
  await using served = await testSidecar(database, ["demo"], {
    metricsListen: anyPort,
    bindings: configured.map((binding) => ({ ...binding, tokens })),
  });
  await failure(served.client.call("get", name));
  await served.client.call("get", name, { authorization: "Bearer a-token-0123456789" });

  const { value } = await scrape(served.sidecar.metrics);

  expect(value("plugin_state_rpc_refused_total", { code: "UNAUTHENTICATED" })).toBe(1);
  const calls = "plugin_state_plugin_calls_total";
  expect(value(calls, { plugin: "demo", code: "OK" })).toBe(1);
});

test("a call that its client gives up is counted once, as what became of it", async () => {
  await using served = await testSidecar(database, ["one"], { metricsListen: anyPort });
  const writes = await holdWrites(database);
  const late = failure(
    served.client.call("set", { ...name, valueJson: "1" }, { deadlineMs: 2000 }),
  );
  await writes.areWaiting(1);
  expect((await late).code).toBe(status.DEADLINE_EXCEEDED);
  await writes.release();
  const finished = async () =>
    (await scrape(served.sidecar.metrics)).samples.filter(
      (sample) => sample.name === "plugin_state_plugin_calls_total",
    );
  await expect.poll(finished, soon).toHaveLength(1);
  const { value } = await scrape(served.sidecar.metrics);
  expect(value("plugin_state_rpc_in_flight")).toBe(0);
  expect(value("plugin_state_rpc_refused_total")).toBeUndefined();
});

test("open connections and calls in flight are those of the moment", async () => {
  await using served = await testSidecar(database, ["one"], { metricsListen: anyPort });
  const { metrics } = served.sidecar;
  const number = async (metric: string) => (await scrape(metrics)).value(metric);
  await served.client.call("set", { ...name, valueJson: "0" });
  expect(await number("plugin_state_rpc_connections")).toBe(1);

  const second = new TestClient(served.address);
  await second.call("get", name);
  expect(await number("plugin_state_rpc_connections")).toBe(2);
  second[Symbol.dispose]();
  await expect.poll(() => number("plugin_state_rpc_connections"), soon).toBe(1);

  await withClient(database.connection, async (blocker) => {
    await blocker.query("begin");
    await blocker.query("select from plugin_sidecar.plugin_revisions for update");
    const first = served.client.call("set", { scope, key: "a", valueJson: "1" });
    const inUse = { state: "in_use" };
    const connections = async () =>
      (await scrape(metrics)).value("plugin_state_pool_connections", inUse);
    await expect.poll(connections, soon).toBe(1);
    expect(await number("plugin_state_rpc_in_flight")).toBe(1);
    const second = served.client.call("set", { scope, key: "b", valueJson: '"12"' });
    const writes = { lane: "writes" };
    await expect
      .poll(
        async () => (await scrape(metrics)).value("plugin_state_lane_waiting_calls", writes),
        soon,
      )
      .toBe(1);
    const { value } = await scrape(metrics);
    expect(value("plugin_state_lane_waiting_bytes", writes)).toBe(4);
    expect(value("plugin_state_rpc_in_flight")).toBe(2);
    await blocker.query("rollback");
    await Promise.all([first, second]);
  });
  const { value } = await scrape(metrics);
  expect(value("plugin_state_rpc_in_flight")).toBe(0);
  expect(value("plugin_state_lane_waiting_calls", { lane: "writes" })).toBe(0);
  expect(value("plugin_state_lane_waiting_bytes", { lane: "writes" })).toBe(0);
});

test("batches, statements and waiting are told by lane and by the statement's name", async () => {
  await using served = await testSidecar(database, ["one"], { metricsListen: anyPort });
  await Promise.all(Array.from({ length: 40 }, () => served.client.call("get", name)));
  await served.client.call("list", { scope });

  const { value } = await scrape(served.sidecar.metrics);

  const batches = "plugin_state_lane_batch_calls";
  expect(value(`${batches}_sum`, { lane: "reads" })).toBe(40);
  expect(value(`${batches}_count`, { lane: "reads" })).toBeLessThan(40);
  expect(value(`${batches}_count`, { lane: "scans" })).toBe(1);
  expect(value("plugin_state_lane_wait_seconds_count", { lane: "reads" })).toBe(40);
  const statements = "plugin_state_statement_duration_seconds_count";
  const reads = (statement: string) => value(statements, { statement }) ?? 0;
  expect(reads("read_place") + reads("read_entry")).toBe(
    value(`${batches}_count`, { lane: "reads" }),
  );
  expect(value(statements, { statement: "list_entries" })).toBe(1);
  expect(value("plugin_state_pool_wait_seconds_count")).toBeGreaterThan(1);
});

test("a full lane counts what it refuses, and nothing else of it", async () => {
  const metrics = new Metrics("0");
  let finish = (): void => undefined;
  const held = new Promise<readonly string[]>((resolve) => {
    finish = () => resolve(["answer"]);
  });
  const work = {
    run: () => held,
    cost: () => ({ weight: 1, bytes: 7 }),
    remedy: () => "fail" as const,
  };
  const batches = { batchWeight: 1, batchBytes: 100, batches: 1 };
  const waiting = { waitingCalls: 1, waitingBytes: 100 };
  const lane = new Lane(work, { ...batches, ...waiting, observer: metrics.lanes.writes });
  const { signal } = new AbortController();

  const first = lane.submit("first", signal);
  await new Promise((resolve) => setImmediate(resolve));
  const second = lane.submit("second", signal);
  await expect(lane.submit("third", signal)).rejects.toBeInstanceOf(Overloaded);

  const writes = { lane: "writes" };
  const full = parseScrape(await metrics.text());
  expect(full.value("plugin_state_lane_refused_calls_total", writes)).toBe(1);
  expect(full.value("plugin_state_lane_waiting_calls", writes)).toBe(1);
  expect(full.value("plugin_state_lane_waiting_bytes", writes)).toBe(7);
  finish();
  await Promise.all([first, second]);
  const empty = parseScrape(await metrics.text());
  expect(empty.value("plugin_state_lane_waiting_calls", writes)).toBe(0);
  expect(empty.value("plugin_state_lane_waiting_bytes", writes)).toBe(0);
  expect(empty.value("plugin_state_lane_wait_seconds_count", writes)).toBe(2);
  expect(empty.value("plugin_state_lane_batch_calls_count", writes)).toBe(2);
});

test("a database that goes away shows, and the errors by class of SQLSTATE", async () => {
  await using proxy = await FaultProxy.before(database.url);
  await using served = await testSidecar(database, ["one"], {
    metricsListen: anyPort,
    database: { kind: "url", url: proxy.through(database.url) },
  });
  const { metrics } = served.sidecar;
  const healthz = async () => (await fetch(`http://${metrics}/healthz`)).status;
  expect((await scrape(metrics)).value("plugin_state_database_up")).toBe(1);
  expect(await healthz()).toBe(200);
  await database.query(
    `create function refuse() returns trigger language plpgsql as
       $$ begin raise exception 'no' using errcode = '22003'; end $$`,
  );
  await database.query(
    "create trigger refuse before insert on plugin_sidecar.plugin_state for each row when (new.state_key = 'bad') execute function refuse()",
  );
  await failure(served.client.call("set", { scope, key: "bad", valueJson: "1" }));
  const errors = "plugin_state_statement_errors_total";
  const failed = (await scrape(metrics)).value(errors, {
    statement: "set_entries",
    sqlstate_class: "22",
  });
  expect(failed).toBe(1);

  await proxy.close();
  await expect
    .poll(async () => (await scrape(metrics)).value("plugin_state_database_up"), soon)
    .toBe(0);
  expect(await healthz()).toBe(503);
  const { value } = await scrape(metrics);
  expect(value("plugin_state_database_connection_failures_total")).toBeGreaterThan(0);
});

test("what the sweeper removed is counted", async () => {
  await using served = await testSidecar(database, ["one"], { metricsListen: anyPort });
  await served.client.call("set", { scope, key: "short", valueJson: "1", ttl: { nanos: 1000 } });
  const swept = async () =>
    (await scrape(served.sidecar.metrics)).value("plugin_state_swept_total", { kind: "entries" });
  await expect.poll(swept, soon).toBe(1);
});

test("a plugin that is purged and installed anew shows under the same name, with its calls", async () => {
  await using served = await testSidecar(database, ["one", "two"], { metricsListen: anyPort });
  const { metrics } = served.sidecar;
  const serving = async (plugin: string) =>
    (await scrape(metrics)).value("plugin_state_binding_serving", { plugin });
  expect(await serving("one")).toBe(1);
  await database.query("delete from plugin_sidecar.plugins where plugin_key = 'one'");
  await expect.poll(() => serving("one"), soon).toBe(0);
  expect(await serving("two")).toBe(1);
  expect((await fetch(`http://${metrics}/healthz`)).status).toBe(200);

  await database.addPlugin("one");

  await served.client.call("set", { scope, key: "k", valueJson: "1" });
  expect(await serving("one")).toBe(1);
  const labels = { plugin: "one", code: "OK" };
  expect((await scrape(metrics)).value("plugin_state_plugin_calls_total", labels)).toBe(1);
});
