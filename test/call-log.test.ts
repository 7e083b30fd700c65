import { expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { createLog } from "../src/log.ts";
import { startSidecar } from "../src/server.ts";
import { failure, TestClient } from "./support/client.ts";
import { testDatabase } from "./support/database.ts";
import { FaultProxy } from "./support/proxy.ts";
import { configFor } from "./support/sidecar.ts";

const scope = { kind: ScopeKind.INSTANCE };

/** The calls' lines in a log. */
function callsIn(lines: readonly string[]): Record<string, unknown>[] {
  return lines.map((line) => JSON.parse(line)).filter(({ rpc }) => rpc !== undefined);
}

test("one line for each failed or slow call, none for the rest, and no value or SQL in any", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  await using proxy = await FaultProxy.before(database.url);
  const lines: string[] = [];
  const log = createLog("trace", { write: (line: string) => void lines.push(line) });
  const config = { ...configFor(proxy.through(database.url), ["demo"]), slowCallMs: 60_000 };
  const sidecar = await startSidecar(config, log, new AbortController().signal);
  using client = new TestClient(sidecar.bindings[0]!.address);

  await client.call("set", { scope, key: "quiet", valueJson: '"s3cret"' });
  await client.call("get", { scope, key: "quiet" });
  expect(callsIn(lines)).toEqual([]);

  await failure(client.call("set", { scope, key: "bad", valueJson: '{"s3cret": ' }));
  await proxy.close();
  await failure(client.call("set", { scope, key: "lost", valueJson: '"s3cret"' }));
  expect(callsIn(lines)).toMatchObject([
    { rpc: "Set", code: "INVALID_ARGUMENT", plugin: "demo", level: "info" },
    { rpc: "Set", code: "UNAVAILABLE", plugin: "demo", level: "error" },
  ]);
  await sidecar.stop();
  expect(lines.join("")).not.toMatch(/s3cret|write_entries\(/);
});

test("a quota that is full is the plugin's fault, and no error of the sidecar", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const lines: string[] = [];
  const log = createLog("info", { write: (line: string) => void lines.push(line) });
  const config = configFor(database.url, ["demo"]);
  const full = { ...config, slowCallMs: 60_000, bounds: { ...config.bounds, quotaEntries: 0 } };
  const sidecar = await startSidecar(full, log, new AbortController().signal);
  using client = new TestClient(sidecar.bindings[0]!.address);
  await failure(client.call("set", { scope, key: "any", valueJson: "1" }));
  await sidecar.stop();
  expect(callsIn(lines)).toMatchObject([
    { rpc: "Set", code: "RESOURCE_EXHAUSTED", level: "info", msg: "call refused" },
  ]);
});

test("a call that takes as long as --slow-call-ms is a line of its own", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const lines: string[] = [];
  const log = createLog("info", { write: (line: string) => void lines.push(line) });
  const config = { ...configFor(database.url, ["demo"]), slowCallMs: 0 };
  const sidecar = await startSidecar(config, log, new AbortController().signal);
  using client = new TestClient(sidecar.bindings[0]!.address);
  await client.call("get", { scope, key: "any" });
  await sidecar.stop();
  expect(callsIn(lines)).toMatchObject([
    { rpc: "Get", code: "OK", level: "warn", msg: "slow call", ms: expect.any(Number) },
  ]);
});
