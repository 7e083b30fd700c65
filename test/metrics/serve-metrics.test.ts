import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Running, run } from "../command/run-command.ts";
import { testDatabase } from "../support/database.ts";
import { scrape } from "../support/metrics.ts";

const mainScript = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const listen = ["--plugin", "demo", "--listen", "127.0.0.1:0"];

test("the ready line says where metrics are, only when they are", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const environment = { DATABASE_URL: database.url };
  const lines: Record<string, unknown>[] = [];
  for (const flags of [[], ["--metrics-listen", "127.0.0.1:0"]]) {
    const sidecar = new Running(mainScript, [...listen, ...flags], environment);
    await sidecar.printed("\n");
    const ready = JSON.parse(sidecar.stdout);
    lines.push(ready);
    if (ready.metrics !== undefined) {
      expect((await scrape(ready.metrics)).value("plugin_state_database_up")).toBe(1);
      await sidecar.logged(`"address":"${ready.metrics}"`);
    }
    sidecar.child.kill("SIGTERM");
    expect((await sidecar.ended()).code).toBe(0);
  }
  expect(lines[0]).not.toHaveProperty("metrics");
  expect(lines[1]).toMatchObject({ metrics: expect.stringMatching(/^127\.0\.0\.1:\d+$/) });
});

test("an address that can't be bound fails the start like a listener's", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const environment = { DATABASE_URL: database.url };
  const first = new Running(
    mainScript,
    [...listen, "--metrics-listen", "127.0.0.1:0"],
    environment,
  );
  await first.printed("\n");
  const { metrics } = JSON.parse(first.stdout);

  const second = await run([...listen, "--metrics-listen", metrics], environment);

  expect(second.code).toBe(73);
  expect(JSON.parse(second.stdout)).toMatchObject({
    event: "failed",
    reason: "ADDRESS_IN_USE",
    message: expect.stringContaining("--metrics-listen"),
    retryable: true,
  });
});

test.each([
  ["0.0.0.0:9090", "--insecure"],
  ["fd:3", "no descriptor"],
  ["9090", "no host and port"],
])("--metrics-listen %s is refused before anything starts", async (address, why) => {
  const { code, stdout, stderr } = await run(["--metrics-listen", address]);
  expect(code).toBe(64);
  expect(`${stdout}${stderr}`).toContain(why);
});

test("neither prom-client nor OpenTelemetry is loaded unless somebody wants it", async () => {
  await using database = await testDatabase();
  await database.addPlugin("demo");
  const trace = new URL("../command/trace-imports.js", import.meta.url).pathname;
  const environment = { DATABASE_URL: database.url, NODE_OPTIONS: `--import ${trace}` };
  const loaded: string[] = [];
  for (const flags of [[], ["--metrics-listen", "127.0.0.1:0"]]) {
    const sidecar = new Running(mainScript, [...listen, ...flags], environment);
    await sidecar.printed('"ready"');
    sidecar.child.kill("SIGTERM");
    loaded.push((await sidecar.ended()).stderr);
  }
  expect(loaded[0]).toContain("/dist/server.js");
  expect(loaded[0]).not.toMatch(/prom-client|metrics-server|@opentelemetry/);
  // prom-client itself needs OpenTelemetry's API.
  expect(loaded[1]).toMatch(/prom-client/);
});
