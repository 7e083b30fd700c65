import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { startSidecar } from "../../src/supervisor/supervisor.ts";
import { failedStart, isAlive, odd, supervise, untilGone } from "./supervise.ts";

test("starts, and says who serves which plugin where", async () => {
  const { sidecar, told } = await supervise(odd("ready"));

  expect(sidecar.version).toBe("1.2.3");
  expect(sidecar.restarts).toBe(0);
  expect(sidecar.bindings).toEqual([{ plugin: "demo", pluginId: "1", address: "127.0.0.1:9" }]);
  expect(told.events).toMatchObject([
    { type: "started", pid: sidecar.pid },
    { type: "ready", pid: sidecar.pid, version: "1.2.3", bindings: sidecar.bindings },
  ]);
});

test("an address that the supervisor can't read is handed on as it is", async () => {
  const { sidecar } = await supervise({ ...odd("an odd address"), holdSockets: false });

  expect(sidecar.bindings).toMatchObject([{ address: "a b" }]);
});

test("the token and the database URL are in the environment, and never in the arguments", async () => {
  const databaseUrl = "postgres://user:hunter22@h/db";
  const { told } = await supervise({
    ...odd("ready and tells"),
    databaseUrl,
    token: "a-token-of-mine",
    env: { EXTRA: "more", GONE: undefined },
    args: ["--slow-call-ms", "5"],
    dataDir: "/somewhere",
  });
  await expect.poll(() => told.log.length).toBe(1);

  const { argv, env } = JSON.parse(told.log[0]!);
  expect(argv).toEqual([
    ...["--plugin", "demo", "--listen", "fd:3", "--data-dir", "/somewhere"],
    ...["--exit-with-parent", "--slow-call-ms", "5"],
  ]);
  expect(env).toMatchObject({
    EXTRA: "more",
    DATABASE_URL: expect.stringContaining("@h/db"),
    PLUGIN_STATE_TOKEN: "***",
  });
  expect(env).not.toHaveProperty("GONE");
  expect(told.log[0]).not.toContain("hunter22");
});

test("the host's own variables aren't the sidecar's", async () => {
  process.env["DATABASE_URL"] = "postgres://the-hosts-own/db";
  onTestFinished(() => void delete process.env["DATABASE_URL"]);
  const { told } = await supervise(odd("ready and tells"));
  await expect.poll(() => told.log.length).toBe(1);

  const { env } = JSON.parse(told.log[0]!);
  expect(env).not.toHaveProperty("DATABASE_URL");
  expect(env.PATH).toBe(process.env["PATH"]);
});

test.each([64, 77, 78])("exit code %d at the start isn't tried again", async (code) => {
  const { error, told } = await failedStart(odd("ends with", String(code)));

  expect(error).toMatchObject({ reason: "EXITED", retryable: false, exit: { code } });
  expect(told.of("started")).toHaveLength(1);
  expect(told.of("ended")).toMatchObject([{ end: { reason: "not_retryable" } }]);
});

test("a failed line that isn't retryable is the error, and isn't tried again", async () => {
  const { error, told } = await failedStart(odd("fails for good"));

  expect(error).toMatchObject({
    name: "SidecarError",
    reason: "BUG",
    message: "it was BUG",
    retryable: false,
    exit: { code: 70, signal: null },
  });
  expect(told.of("started")).toHaveLength(1);
});

test("a final exit code counts more than a failed line", async () => {
  const { error, told } = await failedStart(odd("fails retryably with 78"));

  expect(error).toMatchObject({ reason: "ODD", retryable: false, exit: { code: 78 } });
  expect(told.of("started")).toHaveLength(1);
});

test("a retryable failure is tried ten times again, and then is the error", async () => {
  const { error, told } = await failedStart(odd("fails retryably"));

  expect(error).toMatchObject({ reason: "DATABASE_UNAVAILABLE", retryable: true });
  expect(told.of("started")).toHaveLength(11);
  expect(told.of("restarting").map(({ restart }) => restart)).toEqual([
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
  ]);
  expect(told.of("ended")).toEqual([
    { type: "ended", end: { reason: "too_many_restarts", error, restarts: 10 } },
  ]);
});

test("a start that succeeds at the third attempt is a start", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ps-starts-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const { sidecar, told } = await supervise(odd("fails at first", join(directory, "starts"), "2"));

  expect(sidecar.restarts).toBe(2);
  expect(told.of("start_failed")).toHaveLength(2);
});

test("another protocol is refused, and its process killed", async () => {
  const { error, told } = await failedStart(odd("another protocol"));

  expect(error).toMatchObject({ reason: "UNSUPPORTED_PROTOCOL", retryable: false });
  expect(error.message).toContain("protocol 2");
  expect(isAlive(told.of("started")[0]!.pid)).toBe(false);
});

const once = { restart: { maxRestarts: 0 } };

test.each([
  ["garbage", "it is no JSON"],
  ["no line end", "longer than 65536 characters"],
  ["no bindings", "is missing"],
  ["an empty address", "has no plugin, pluginId or address"],
])("%s on stdout is a failed start, and its process killed", async (behaviour, message) => {
  const { error, told } = await failedStart({ ...odd(behaviour), ...once });

  expect(error).toMatchObject({ reason: "BAD_READY_LINE", retryable: true });
  expect(error.message).toContain(message);
  expect(isAlive(told.of("started")[0]!.pid)).toBe(false);
});

test("a process that closes stdout can't say that it's ready: it is killed", async () => {
  const { error, told } = await failedStart({ ...odd("closes stdout"), ...once });

  expect(error).toMatchObject({ reason: "STDOUT_CLOSED", retryable: true });
  expect(isAlive(told.of("started")[0]!.pid)).toBe(false);
});

test("a process that hangs at its start is killed after the time for it", async () => {
  const { error, told } = await failedStart({
    ...odd("says nothing"),
    ...once,
    startTimeoutMs: 300,
  });

  expect(error).toMatchObject({ reason: "START_TIMEOUT", retryable: true });
  expect(error.message).toContain("300 ms");
  expect(isAlive(told.of("started")[0]!.pid)).toBe(false);
});

test("a process that hangs after its failed line is killed", async () => {
  const { error, told } = await failedStart(odd("fails and hangs"));

  expect(error).toMatchObject({ reason: "BUG", retryable: false });
  expect(isAlive(told.of("started")[0]!.pid)).toBe(false);
});

test("a command that can't be run is a failed start, and isn't tried again", async () => {
  const { error, told } = await failedStart({
    ...odd("ready"),
    command: ["/no/such/program"],
  });

  expect(error).toMatchObject({ reason: "CANNOT_SPAWN", retryable: false });
  expect(error.message).toContain("ENOENT");
  expect(told.of("started")).toHaveLength(0);
});

test("what it prints on stdout after the ready line is read and forgotten", async () => {
  const { sidecar, told } = await supervise(odd("ready and talks on"));

  await expect.poll(() => told.log).toEqual(["said all"]);
  expect(sidecar.restarts).toBe(0);
});

test("a flood on stderr is bounded, cut into lines, and has no secrets", async () => {
  const secret = "s3cret-token";
  const { told } = await supervise({ ...odd("ready and floods", secret, "50000"), token: secret });
  const hasDropped = () => told.log.some((line) => line.includes("were dropped"));
  await expect.poll(hasDropped, { timeout: 20_000 }).toBe(true);

  expect(told.log.length).toBeLessThan(20_000);
  expect(told.log[0]).toBe('{"n":0,"secret":"***"}');
  expect(Math.max(...told.log.map((line) => line.length))).toBeLessThanOrEqual(8193);
  expect(told.log.some((line) => line.includes(secret))).toBe(false);
});

test("a host's callback that throws doesn't end the supervision", async () => {
  const warned: string[] = [];
  const onWarning = (warning: Error) => warned.push(warning.message);
  process.on("warning", onWarning);
  onTestFinished(() => void process.off("warning", onWarning));
  const sidecar = await startSidecar({
    ...odd("ready"),
    onEvent: () => {
      throw new Error("the host's own");
    },
  });

  await sidecar.stop();

  await expect.poll(() => warned).toContain("the host's own");
});

test("a signal that aborts during the start stops the child, and is the error", async () => {
  const abort = new AbortController();
  const pids: number[] = [];
  const start = startSidecar({
    ...odd("says nothing"),
    stopTimeoutMs: 200,
    signal: abort.signal,
    onEvent: (event) => event.type === "started" && pids.push(event.pid),
  });
  await expect.poll(() => pids.length).toBe(1);

  abort.abort(new Error("enough"));

  await expect(start).rejects.toThrow("enough");
  await untilGone(pids[0]!);
});

test("a signal that was aborted before starts nothing", async () => {
  const events: unknown[] = [];
  const start = startSidecar({
    ...odd("ready"),
    signal: AbortSignal.abort(new Error("too late")),
    onEvent: (event) => events.push(event),
  });

  await expect(start).rejects.toThrow("too late");
  expect(events).toEqual([]);
});

test.each([
  [{ bindings: [] }, "give either bindings"],
  [{ config: "a.yaml", bindings: [{ plugin: "demo" }] }, "give either bindings"],
  [{ bindings: [{ plugin: "demo", listen: "nowhere" }] }, "is not an address to listen on"],
  [{ bindings: [{ plugin: "demo", listen: "fd:3" }] }, "opens the addresses itself"],
  [{ bindings: [{ plugin: "demo" }], sockets: ["127.0.0.1:0"] }, "sockets are for"],
  [{ bindings: [{ plugin: "demo" }], startTimeoutMs: Number.NaN }, "startTimeoutMs must be"],
  [{ bindings: [{ plugin: "demo" }], restart: { maxMs: -1 } }, "maxMs must be"],
  [{ bindings: [{ plugin: "de\0mo" }] }, "holds a NUL"],
  [{ bindings: [{ plugin: "a" }, { plugin: "b" }], token: "t" }, "good for one binding only"],
  [{ config: "a.yaml", token: "t" }, "good for one binding only"],
])("refuses options that make no sense: %j", async (options, message) => {
  await expect(startSidecar(options)).rejects.toThrow(message);
});
