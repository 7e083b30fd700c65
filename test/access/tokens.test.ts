import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { TokenSource } from "../../src/config/config.ts";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { StartError } from "../../src/start-error.ts";
import { failure, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { healthOf } from "../support/health.ts";
import { configFor, type TestSidecar, testSidecar } from "../support/sidecar.ts";

const first = "first-token-0123456789";
const second = "second-token-0123456789";
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;
let directory: string;

beforeAll(async () => {
  database = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
});

afterAll(async () => {
  rmSync(directory, { recursive: true });
  await database[Symbol.asyncDispose]();
});

function guarded(tokens: TokenSource): Promise<TestSidecar> {
  const [binding] = configFor(database.url, ["demo"]).bindings;
  return testSidecar(database, ["demo"], { bindings: [{ ...binding!, tokens }] });
}

function tokenFile(content: string): string {
  const path = join(directory, `token-${Math.random()}`);
  writeFileSync(path, content);
  return path;
}

test("a call without the token, or with another, is UNAUTHENTICATED and nothing is done", async () => {
  await using sidecar = await guarded({ kind: "text", token: first, name: "TOKEN" });
  const { client } = sidecar;
  const attempts = [
    {},
    bearer(second),
    bearer(`${first}x`),
    bearer(first.slice(0, -1)),
    { authorization: first },
    { authorization: `Basic ${first}` },
    { authorization: "Bearer" },
    { authorization: "" },
  ];

  for (const options of attempts) {
    const error = await failure(client.call("set", { ...name, valueJson: "1" }, options));
    expect([error.codeName, error.reason]).toEqual(["UNAUTHENTICATED", "UNAUTHENTICATED"]);
    expect(error.message).not.toContain(first);
  }
  const { entry } = await client.call("get", name, bearer(first));
  expect(entry).toBeUndefined();
});

test("with the token all goes as ever, whatever the case of Bearer", async () => {
  await using sidecar = await guarded({ kind: "text", token: first, name: "TOKEN" });

  await sidecar.client.call("set", { ...name, valueJson: "1" }, bearer(first));
  const reply = await sidecar.client.call("get", name, { authorization: `bearer ${first}` });

  expect(reply.entry?.valueJson).toBe("1");
});

test("health and reflection need no token: a probe has none", async () => {
  await using sidecar = await guarded({ kind: "text", token: first, name: "TOKEN" });

  expect(await healthOf(sidecar.address)).toBe("SERVING");
});

test("calls that were refused for their token are counted", async () => {
  const [binding] = configFor(database.url, ["demo"]).bindings;
  const tokens = { kind: "text", token: first, name: "TOKEN" } as const;
  await using sidecar = await testSidecar(database, ["demo"], {
    bindings: [{ ...binding!, tokens }],
    metricsListen: { kind: "tcp", host: "127.0.0.1", port: 0 },
  });
  await failure(sidecar.client.call("get", name, bearer(second)));

  const metrics = await fetch(`http://${sidecar.sidecar.metrics}/metrics`);

  expect(await metrics.text()).toMatch(
    /^plugin_state_rpc_refused_total\{[^}]*UNAUTHENTICATED[^}]*\} 1$/m,
  );
});

test("a request is refused by its headers, before its message has come", async () => {
  await using sidecar = await guarded({ kind: "text", token: first, name: "TOKEN" });
  const malformed = Buffer.alloc(1024 * 1024, 0xff);

  const error = await failure(sidecar.client.send("set", malformed));

  expect(error.reason).toBe("UNAUTHENTICATED");
});

test("a token is rotated in its file, without a restart and without a moment in which neither is good", async () => {
  const path = tokenFile(`${first}\n`);
  await using sidecar = await guarded({ kind: "file", path });
  const { client } = sidecar;
  await client.call("get", name, bearer(first));

  writeFileSync(path, `${first}\n\n  ${second}  \n`);
  await vi.waitFor(() => client.call("get", name, bearer(second)), { timeout: 15_000 });
  await client.call("get", name, bearer(first));

  writeFileSync(path, second);
  await vi.waitFor(() => failure(client.call("get", name, bearer(first))), { timeout: 15_000 });
  await client.call("get", name, bearer(second));
});

test("a token file that becomes unusable leaves the tokens that were", async () => {
  const path = tokenFile(first);
  await using sidecar = await guarded({ kind: "file", path });

  writeFileSync(path, "short");
  // Another sidecar reads it meanwhile, so that time has passed in which this one could have.
  const other = tokenFile(first);
  await using watching = await guarded({ kind: "file", path: other });
  writeFileSync(other, second);
  await vi.waitFor(() => watching.client.call("get", name, bearer(second)), { timeout: 15_000 });

  await sidecar.client.call("get", name, bearer(first));
});

test("a connection made with one token doesn't carry a call with another", async () => {
  await using sidecar = await guarded({ kind: "text", token: first, name: "TOKEN" });
  using client = new TestClient(sidecar.address);
  await client.call("get", name, bearer(first));

  expect((await failure(client.call("get", name, bearer(second)))).codeName).toBe(
    "UNAUTHENTICATED",
  );
});

test.each([
  ["", "holds no token"],
  ["short\n", "16 to 4096 characters"],
  ["a token with spaces in it", "no space"],
])("a token file with %j is refused at start, without being shown", async (content, problem) => {
  const start = guarded({ kind: "file", path: tokenFile(content) });

  const error: unknown = await start.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(StartError);
  expect(error).toMatchObject({ reason: "TOKEN_UNUSABLE", exitCode: 78 });
  expect((error as StartError).message).toContain(problem);
});

test("a token file that isn't there is refused at start", async () => {
  const start = guarded({ kind: "file", path: join(directory, "absent") });

  await expect(start).rejects.toMatchObject({ reason: "TOKEN_UNUSABLE", exitCode: 78 });
});
