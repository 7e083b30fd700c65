import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { TestClient } from "./support/client.ts";
import { testDatabase } from "./support/database.ts";
import { healthOf } from "./support/health.ts";

/**
 * What systemd does with a socket unit: listens at the path it is given, never accepts (its event
 * loop doesn't get to run), and starts the sidecar on the socket; again when a line is typed.
 */
const supervisor = `
  const { spawnSync } = require("node:child_process");
  const { readSync } = require("node:fs");
  const [path, ...args] = process.argv.slice(1);
  const server = require("node:net").createServer().listen({ path, backlog: 64 }, () => {
    for (;;) {
      const stdio = ["ignore", "inherit", "ignore", server._handle.fd];
      const { status } = spawnSync(process.execPath, args, { stdio });
      console.log(JSON.stringify({ event: "ended", status }));
      readSync(0, Buffer.alloc(1));
    }
  });`;

interface Line {
  readonly event: string;
  readonly pid: number;
  readonly bindings: { readonly address: string }[];
}

function supervise(path: string, url: string): ChildProcess {
  const serve = ["dist/main.js", "serve", "--plugin", "demo", "--listen", "fd:3"];
  const child = spawn(process.execPath, ["-e", supervisor, path, ...serve], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, DATABASE_URL: url },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  return child;
}

function endIfRunning(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

test("who connects to an inherited socket while the sidecar is replaced is answered by the next one", async () => {
  const database = await testDatabase();
  const directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  onTestFinished(async () => {
    rmSync(directory, { recursive: true });
    await database[Symbol.asyncDispose]();
  });
  await database.addPlugin("demo");
  const path = join(directory, "state.sock");
  const child = supervise(path, database.url);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async (): Promise<Line> => {
    const line: Line = JSON.parse((await lines.next()).value);
    if (line.event === "ready") onTestFinished(() => endIfRunning(line.pid));
    return line;
  };

  const first = await next();
  expect(first).toMatchObject({ event: "ready", bindings: [{ address: "fd:3" }] });
  process.kill(first.pid, "SIGTERM");
  expect(await next()).toEqual({ event: "ended", status: 0 });

  const meanwhile = healthOf(`unix://${path}`);
  child.stdin!.write("\n");
  expect(await next()).toMatchObject({ event: "ready" });
  expect(await meanwhile).toMatch(/^(NOT_)?SERVING$/);
  using client = new TestClient(`unix://${path}`);
  const reply = await client.call("set", {
    scope: { kind: ScopeKind.INSTANCE },
    key: "k",
    valueJson: "1",
  });
  expect(reply).toMatchObject({ revision: 1n });
});
