import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { startScripted } from "./run-command.ts";

test("prints exactly one line on stdout when ready, and its logs on stderr", async () => {
  const process = startScripted("ready");
  await process.logged('"msg":"ready"');
  process.child.kill("SIGTERM");

  const { code, stdout, stderr } = await process.ended();

  expect(code).toBe(0);
  expect(stdout.split("\n")).toHaveLength(2);
  expect(JSON.parse(stdout)).toEqual({
    event: "ready",
    protocol: 1,
    pid: process.child.pid,
    version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    bindings: [
      {
        plugin: "demo",
        pluginId: "00000000-0000-4000-8000-000000000000",
        address: "127.0.0.1:41234",
      },
    ],
    health: "grpc.health.v1",
  });
  expect(stderr).toContain("drained");
  for (const line of stderr
    .trim()
    .split("\n")
    .filter((text) => text !== "drained")) {
    expect(JSON.parse(line)).toMatchObject({ name: "plugin-state", pid: process.child.pid });
  }
});

test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)(
  "drains on %s and exits with 0",
  async (signal) => {
    const process = startScripted("ready");
    await process.printed("ready");

    process.child.kill(signal);

    expect(await process.ended()).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("drained"),
    });
  },
);

test("a signal during the start cancels it, with exit code 0 and no line on stdout", async () => {
  const process = startScripted("never starts");
  await process.logged("starting");

  process.child.kill("SIGTERM");

  expect(await process.ended()).toMatchObject({ code: 0, stdout: "" });
});

test("a start that succeeds in spite of a signal is drained and never said to be ready", async () => {
  const process = startScripted("starts in spite of the signal");
  await process.logged("starting");

  process.child.kill("SIGTERM");

  expect(await process.ended()).toMatchObject({
    code: 0,
    stdout: "",
    stderr: expect.stringContaining("drained"),
  });
});

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("a second signal, %s, aborts at once and exits with %d", async (signal, code) => {
  const process = startScripted("never stops");
  await process.printed("ready");

  process.child.kill("SIGTERM");
  await process.logged("a second signal stops at once");
  await sleep(300);
  process.child.kill(signal);

  expect(await process.ended()).toMatchObject({ code, stderr: expect.stringContaining("aborted") });
});

test("a copy of the first signal, as npm passes on, doesn't abort the drain", async () => {
  const process = startScripted("never stops");
  await process.printed("ready");

  process.child.kill("SIGINT");
  await process.logged("a second signal stops at once");
  process.child.kill("SIGINT");
  await sleep(500);

  expect(process.stderr).not.toContain("aborted");
  process.child.kill("SIGINT");
  expect(await process.ended()).toMatchObject({ code: 130 });
});

test("a second signal ends the process even when the abort hangs", async () => {
  const process = startScripted("never aborts");
  await process.printed("ready");

  process.child.kill("SIGTERM");
  await process.logged("a second signal stops at once");
  await sleep(300);
  process.child.kill("SIGTERM");

  expect(await process.ended()).toMatchObject({ code: 143 });
});

test("says on stdout why it didn't start, and never a password", async () => {
  const { code, stdout, stderr } = await startScripted("can't reach the database").ended();

  expect(code).toBe(69);
  expect(JSON.parse(stdout)).toEqual({
    event: "failed",
    reason: "DATABASE_UNAVAILABLE",
    message: "the database can't be reached. Is it running?",
    retryable: true,
  });
  expect(stderr).toContain("postgres://u:***@h/db");
  expect(stderr).not.toContain("hunter2");
});

test("a bug at start is a failed line, exit code 70 and a stack on the log", async () => {
  const { code, stdout, stderr } = await startScripted("has a bug").ended();

  expect(code).toBe(70);
  expect(JSON.parse(stdout)).toMatchObject({ event: "failed", reason: "BUG", retryable: false });
  expect(stderr).toContain("TypeError: undefined is no function");
});

test("a drain that fails exits with 70 and adds no line to stdout", async () => {
  const process = startScripted("has a bug in the drain");
  await process.printed("ready");
  process.child.kill("SIGTERM");

  const { code, stdout } = await process.ended();

  expect(code).toBe(70);
  expect(stdout.trim().split("\n")).toHaveLength(1);
});

test("an error that nobody catches at start is a failed line and exit code 70", async () => {
  const { code, stdout, stderr } = await startScripted("throws at start").ended();

  expect(code).toBe(70);
  expect(JSON.parse(stdout)).toMatchObject({ event: "failed", reason: "BUG" });
  expect(stderr).toContain("nobody catches this");
});

test.each(["throws when ready", "rejects when ready"])(
  "a sidecar that %s aborts, and exits with 70 without a second line",
  async (script) => {
    const { code, stdout, stderr } = await startScripted(script).ended();

    expect(code).toBe(70);
    expect(stdout.trim().split("\n")).toHaveLength(1);
    expect(stderr).toContain("nobody catches this");
    expect(stderr).toContain("aborted");
  },
);

test("drains when its parent's end of stdin is gone, if told to", async () => {
  const process = startScripted("ready", ["--exit-with-parent"]);
  await process.printed("ready");

  process.child.stdin.end();

  expect(await process.ended()).toMatchObject({
    code: 0,
    stderr: expect.stringContaining("drained"),
  });
});

test("a host that closes stdin and then sends SIGTERM gets a drain, not an abort", async () => {
  const process = startScripted("never stops", ["--exit-with-parent"]);
  await process.printed("ready");

  process.child.stdin.end();
  await process.logged("stdin ended");
  process.child.kill("SIGTERM");
  await process.logged("a second signal stops at once");

  expect(process.stderr).not.toContain("aborted");
  process.child.kill("SIGKILL");
});

test("ignores the end of stdin unless told otherwise", async () => {
  const process = startScripted("ready");
  await process.printed("ready");

  process.child.stdin.end();
  await sleep(200);

  expect(process.child.exitCode).toBeNull();
  process.child.kill("SIGTERM");
  expect(await process.ended()).toMatchObject({ code: 0 });
});

test("outlives a host that closes stdout and stderr", async () => {
  const process = startScripted("logs without end");
  await process.printed("ready");

  process.child.stdout.destroy();
  process.child.stderr.destroy();
  await sleep(300);

  expect(process.child.exitCode).toBeNull();
  process.child.kill("SIGTERM");
  const { code } = await process.ended();
  expect(code).toBe(0);
});

test("drains even when nobody reads its log", async () => {
  const process = startScripted("logs without end");
  await process.printed("ready");

  process.child.stderr.pause();
  await sleep(500);
  process.child.kill("SIGTERM");
  await new Promise((resolve) => process.child.once("exit", resolve));

  expect(process.child.exitCode).toBe(0);
  process.child.stderr.resume();
});
