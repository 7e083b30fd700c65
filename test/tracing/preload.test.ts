import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { Running } from "../command/run-command.ts";
import { failure, TestClient } from "../support/client.ts";
import { testDatabase } from "../support/database.ts";

const mainScript = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const sdk = fileURLToPath(new URL("otel.mjs", import.meta.url));

test("an SDK that NODE_OPTIONS loads gets spans, and failed calls' log lines their trace", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const sidecar = new Running(mainScript, ["--plugin", "demo", "--listen", "127.0.0.1:0"], {
    DATABASE_URL: database.url,
    NODE_OPTIONS: `--import ${sdk}`,
  });
  await sidecar.printed("\n");
  using client = new TestClient(JSON.parse(sidecar.stdout).bindings[0].address);
  const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
  await client.call("get", name);
  await failure(client.call("set", { ...name, valueJson: "{" }));
  await sidecar.logged("PluginStateService/Set");
  sidecar.child.kill("SIGTERM");
  const { code, stderr } = await sidecar.ended();

  expect(code).toBe(0);
  const lines = stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const spans = lines.filter(({ span }) => span !== undefined).map(({ span }) => span);
  expect(spans).toEqual([
    "read_entry",
    "pluginstate.v1.PluginStateService/Get",
    "pluginstate.v1.PluginStateService/Set",
  ]);
  const refused = lines.find(({ msg }) => msg === "call refused");
  const set = lines.find(({ span }) => String(span).endsWith("/Set"));
  expect(refused.trace_id).toBe(set.traceId);
  expect(refused.trace_id).toMatch(/^[0-9a-f]{32}$/);
});
