import { expect, test } from "vitest";
import { isAlive, odd, supervise } from "./supervise.ts";

test("a killed sidecar is started again", async () => {
  const { sidecar, told } = await supervise(odd("ready"));
  const first = sidecar.pid!;

  process.kill(first, "SIGKILL");

  await expect.poll(() => told.of("ready").length).toBe(2);
  expect(sidecar.pid).not.toBe(first);
  expect(sidecar.restarts).toBe(1);
  expect(told.of("exited")).toEqual([
    { type: "exited", pid: first, exit: { code: null, signal: "SIGKILL" }, asked: false },
  ]);
});

test.each([0, 1, 70])(
  "exit code %d that nobody asked for is a crash; ten restarts in a row are the last",
  async (code) => {
    const { sidecar, told } = await supervise(odd("ready and ends", String(code)));

    const end = await sidecar.onExit;

    expect(end).toMatchObject({
      reason: "too_many_restarts",
      restarts: 10,
      error: { reason: "EXITED", exit: { code, signal: null } },
    });
    expect(told.of("ready")).toHaveLength(11);
    expect(sidecar.restarts).toBe(10);
    expect(sidecar.pid).toBeUndefined();
    expect(told.events.at(-1)).toEqual({ type: "ended", end });
  },
);

test("exit code 78 of a sidecar that was ready isn't tried again either", async () => {
  const { sidecar, told } = await supervise(odd("ready and ends", "78"));

  expect(await sidecar.onExit).toMatchObject({
    reason: "not_retryable",
    error: { exit: { code: 78 } },
  });
  expect(told.of("started")).toHaveLength(1);
});

test("the waits between restarts double, with chance on both sides, up to the longest", async () => {
  const chances = [0, 1, 0.5, 0.5];
  const { sidecar, told } = await supervise({
    ...odd("ready and ends", "1"),
    restart: { initialMs: 8, maxMs: 40, maxRestarts: 4, random: () => chances.shift() ?? 0.5 },
  });
  await sidecar.onExit;

  expect(told.of("restarting").map(({ delayMs }) => delayMs)).toEqual([6, 20, 32, 40]);
});

test("a life of the time that counts as well begins the count anew", async () => {
  const { sidecar, told } = await supervise({
    ...odd("ready and ends", "1"),
    restart: { initialMs: 1, maxRestarts: 1, resetAfterMs: 0 },
  });

  await expect.poll(() => told.of("ready").length, { timeout: 20_000 }).toBeGreaterThan(3);
  expect(new Set(told.of("restarting").map(({ restart }) => restart))).toEqual(new Set([1]));
  await sidecar.stop();
});

test("stopping while it waits for the next start ends the wait", async () => {
  const { sidecar, told } = await supervise({
    ...odd("ready and ends", "1"),
    restart: { initialMs: 300_000 },
  });
  await expect.poll(() => told.of("restarting").length).toBe(1);

  await sidecar.stop();

  expect(await sidecar.onExit).toEqual({ reason: "stopped", exit: { code: 1, signal: null } });
  expect(told.of("started")).toHaveLength(1);
});

test("stop drains by SIGTERM, is idempotent, and shares one promise", async () => {
  const { sidecar, told } = await supervise(odd("ready"));
  const pid = sidecar.pid!;

  const stopping = sidecar.stop();
  expect(sidecar.stop()).toBe(stopping);
  expect(sidecar[Symbol.asyncDispose]()).toBe(stopping);
  await stopping;

  expect(isAlive(pid)).toBe(false);
  expect(await sidecar.onExit).toEqual({
    reason: "stopped",
    exit: { code: null, signal: "SIGTERM" },
  });
  expect(told.of("exited")).toMatchObject([{ pid, asked: true }]);
  expect(told.of("restarting")).toEqual([]);
});

test("stop kills a sidecar that doesn't end in time", async () => {
  const { sidecar, told } = await supervise({ ...odd("ready and deaf"), stopTimeoutMs: 2_000 });
  const pid = sidecar.pid!;

  await sidecar.stop();

  expect(told.log).toEqual(["heard and ignored"]);
  expect(await sidecar.onExit).toMatchObject({ exit: { signal: "SIGKILL" } });
  expect(isAlive(pid)).toBe(false);
});

test("a signal that aborts stops it", async () => {
  const abort = new AbortController();
  const { sidecar } = await supervise({ ...odd("ready"), signal: abort.signal });

  abort.abort();

  expect(await sidecar.onExit).toMatchObject({ reason: "stopped" });
});

test("a stopped sidecar can't be replaced", async () => {
  const { sidecar } = await supervise(odd("ready"));
  await sidecar.stop();

  await expect(sidecar.replace()).rejects.toMatchObject({ reason: "NOT_RUNNING" });
});
