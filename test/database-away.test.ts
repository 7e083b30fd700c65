import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { failure } from "./support/client.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor, type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let proxy: FaultProxy;
let server: TestSidecar;

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

beforeAll(async () => {
  database = await testDatabase();
  proxy = await FaultProxy.before(database.url);
  const url = proxy.through(database.url);
  const { database: config } = configFor(url, []);
  server = await testSidecar(database, ["demo"], { database: config, databaseTimeoutMs: 3_000 });
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

test("while the database refuses connections, health says so and calls are UNAVAILABLE; then both recover", async () => {
  await server.client.call("set", { ...name, valueJson: "1" });
  await proxy.close();
  await expect.poll(() => healthOf(server.address)).toBe("NOT_SERVING");

  const [get, set, list] = await Promise.all([
    failure(server.client.call("get", name)),
    failure(server.client.call("set", { ...name, valueJson: "2" })),
    failure(server.client.call("list", { scope: name.scope })),
  ]);
  for (const error of [get, set, list]) {
    expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
    expect(error.retryAfter).toBe(true);
    expect(error.message).not.toMatch(/ECONN|127\.0\.0\.1|select/);
  }

  await proxy.open();
  await expect.poll(() => healthOf(server.address), { timeout: 5_000 }).toBe("SERVING");
  expect((await server.client.call("get", name)).entry?.valueJson).toBe("1");
});

test("a database that is silent for a few seconds costs nobody a call: health says so, and calls wait", async () => {
  // With time enough for statements.
  const { database: config } = configFor(proxy.through(database.url), []);
  await using patient = await testSidecar(database, ["patient"], { database: config });
  const { client, address } = patient;
  const deadlineMs = 15_000;
  proxy.silence();
  const read = client.call("get", name, { deadlineMs });
  const write = client.call("set", { ...name, valueJson: '"late"' }, { deadlineMs });
  await expect.poll(() => healthOf(address), { timeout: 5_000 }).toBe("NOT_SERVING");
  const list = client.call("list", { scope: name.scope }, { deadlineMs });
  // Comes after the call.
  await healthOf(address);
  proxy.resume();

  const [, { created }] = await Promise.all([read, write, list]);
  expect(created).toBe(true);
  expect((await client.call("get", name)).entry?.valueJson).toBe('"late"');
});

test("cut connections cost nothing but the calls on them", async () => {
  proxy.cut();
  await expect
    .poll(() =>
      server.client.call("get", name).then(
        () => "ok",
        () => "failed",
      ),
    )
    .toBe("ok");
  expect(proxy.connections).toBeLessThanOrEqual(3);
});

test("a silent network fails calls within the database timeout, and service resumes after it", async () => {
  await expect.poll(() => healthOf(server.address)).toBe("SERVING");
  proxy.silence();
  const started = performance.now();
  const error = await failure(server.client.call("get", name));
  expect(error).toMatchObject({ codeName: "UNAVAILABLE", reason: "DATABASE_UNAVAILABLE" });
  expect(performance.now() - started).toBeLessThan(10_000);
  await expect.poll(() => healthOf(server.address), { timeout: 5_000 }).toBe("NOT_SERVING");

  proxy.resume();
  await expect.poll(() => healthOf(server.address), { timeout: 10_000 }).toBe("SERVING");
  expect((await server.client.call("get", name)).entry).toBeDefined();
  expect(proxy.connections).toBeLessThanOrEqual(4);
});
