import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { failure } from "../support/client.ts";
import { databaseUrl } from "../support/database.ts";
import { healthOf } from "../support/health.ts";
import { FaultProxy } from "../support/proxy.ts";
import { demoDatabase, dialState, everyRound, name, patiently, scratch } from "./contract.ts";
import { holdSocket } from "./held-socket.ts";
import { SidecarProcess } from "./sidecar-process.ts";

/** A sidecar on a held socket that starts while the network to its database does what `fail` makes it do. */
async function startBehind(fail: (proxy: FaultProxy) => void | Promise<void>) {
  const { url } = await demoDatabase();
  const proxy = await FaultProxy.before(url);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const databaseUrl = proxy.through(url);
  await fail(proxy);
  const { fd, address } = holdSocket();
  const stdio = ["ignore", "pipe", "pipe", fd] as const;
  const sidecar = new SidecarProcess({ databaseUrl, listen: "fd:3", stdio: [...stdio] });
  return { proxy, sidecar, address };
}

/** Waits until a sidecar accepts connections, which it does before the database has answered. */
async function listens(address: string): Promise<void> {
  const health = () => healthOf(address).catch(() => "not listening");
  await expect.poll(health, { interval: 10 }).toBe("NOT_SERVING");
}

test(
  "the ready line is the only one on stdout, and every line on stderr is JSON",
  everyRound,
  async () => {
    const { url } = await demoDatabase();
    const sidecar = new SidecarProcess({
      databaseUrl: url,
      flags: ["--slow-call-ms", "0", "--log-level", "debug"],
    });
    const client = dialState(await sidecar.address());
    await client.call("set", { ...name, valueJson: "1" });
    await failure(client.call("set", { ...name, valueJson: "{" }));

    expect(await sidecar.stop()).toEqual({ code: 0, signal: null });

    expect(JSON.parse(sidecar.stdout)).toEqual({
      event: "ready",
      protocol: 1,
      pid: sidecar.pid,
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      bindings: [
        {
          plugin: "demo",
          pluginId: expect.stringMatching(/^[0-9a-f-]{36}$/),
          address: expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/),
        },
      ],
      health: "grpc.health.v1",
    });
    expect(sidecar.stdout.split("\n")).toHaveLength(2);
    for (const line of sidecar.stderr.trim().split("\n")) {
      expect(JSON.parse(line)).toMatchObject({
        level: expect.any(String),
        msg: expect.any(String),
      });
    }
  },
);

test(
  "a database that is away at start is waited for: not ready, NOT_SERVING, UNAVAILABLE; then ready by itself",
  everyRound,
  async () => {
    const { proxy, sidecar, address } = await startBehind((proxy) => proxy.close());

    await sidecar.logged("waiting for the database");
    expect(await healthOf(address)).toBe("NOT_SERVING");
    const client = dialState(address);
    expect(await failure(client.call("get", name))).toMatchObject({
      codeName: "UNAVAILABLE",
      reason: "DATABASE_UNAVAILABLE",
      retryAfter: true,
    });
    expect(sidecar.stdout).toBe("");

    await proxy.open();
    expect(await sidecar.address()).toBe(address);
    expect(await healthOf(address)).toBe("SERVING");
    await client.call("set", { ...name, valueJson: "1" });
  },
);

test(
  "a call that comes while the sidecar starts waits for the database's first answer, rather than fail",
  everyRound,
  async () => {
    const { sidecar, address } = await startBehind((proxy) => proxy.slowDown(30));
    await listens(address);
    expect(sidecar.stdout).toBe("");

    await dialState(address).call("set", { ...name, valueJson: "1" });

    expect(await sidecar.address()).toBe(address);
  },
);

test(
  "a database that doesn't say a word at start is waited for by calls for 5 s, and by the sidecar for longer",
  patiently,
  async () => {
    const { proxy, sidecar, address } = await startBehind((proxy) => proxy.silence());
    await listens(address);
    expect(await failure(dialState(address).call("get", name))).toMatchObject({
      codeName: "UNAVAILABLE",
      reason: "DATABASE_UNAVAILABLE",
      retryAfter: true,
    });
    proxy.resume();
    expect(await sidecar.address()).toBe(address);
  },
);

test.for(["find_plugins"])(
  "a database that goes away just when the sidecar starts, at %s, is waited for all the same",
  patiently,
  async (statement) => {
    const { sidecar } = await startBehind((proxy) => proxy.cutBefore(statement));

    await sidecar.address();

    expect(sidecar.stderr).toContain("waiting for the database");
  },
);

test("the waits for a database grow and are never alike", everyRound, async () => {
  const { url } = await demoDatabase();
  const proxy = await FaultProxy.before(url);
  const through = proxy.through(url);
  await proxy.close();
  const sidecar = new SidecarProcess({ databaseUrl: through });

  await sidecar.logged('"attempt":3');

  const times = sidecar.stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ msg }) => msg === "waiting for the database")
    .map(({ time }) => Date.parse(time));
  // 200, 400 and 800 ms, each from three quarters to five quarters.
  expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(149);
  expect(times[2]! - times[1]!).toBeGreaterThanOrEqual(299);
  expect(times[3]! - times[2]!).toBeGreaterThanOrEqual(599);
});

test("SIGTERM while it waits for the database ends it with 0 and no line", everyRound, async () => {
  const { url } = await demoDatabase();
  const proxy = await FaultProxy.before(url);
  const through = proxy.through(url);
  await proxy.close();
  const sidecar = new SidecarProcess({ databaseUrl: through });
  await sidecar.logged("waiting for the database");

  expect(await sidecar.stop()).toEqual({ code: 0, signal: null });

  expect(sidecar.stdout).toBe("");
});

/** A file that is no socket, in a directory where one could be; removed at the end. */
function fileOfOurs(): string {
  const directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "file");
  writeFileSync(path, "");
  return path;
}

/** How to fail: the database URL to give, made of a good one, or flags. */
interface Failing {
  readonly url?: (good: string) => string;
  readonly flags?: readonly string[];
  readonly listen?: string;
}

test.for<[reason: string, code: number, retryable: boolean, start: Failing]>([
  ["USAGE", 64, false, { listen: "nowhere" }],
  [
    "DATABASE_UNAVAILABLE",
    69,
    true,
    { url: () => "postgres://u@127.0.0.1:1/x", flags: ["--fail-fast"] },
  ],
  ["PATH_TOO_LONG", 73, false, { listen: `unix:/tmp/${"x".repeat(200)}` }],
  ["NOT_A_SOCKET", 73, false, { listen: `unix:${fileOfOurs()}` }],
  ["BAD_DESCRIPTOR", 73, false, { listen: "fd:99" }],
  [
    "DATABASE_PERMISSION",
    77,
    false,
    { url: (good) => good.replace(/\/\/[^@]*@/, "//nobody_knows_me@") },
  ],
  ["DATABASE_CONFIGURATION", 78, false, { url: (good) => databaseUrl(good, "no_such_database") }],
  [
    "HOST_TABLES_MISSING",
    69,
    true,
    {
      url: (good) => databaseUrl(good, "postgres"),
      flags: ["--state-schema", "public", "--fail-fast"],
    },
  ],
])(
  "a start that fails with %s is one failed line and exit code %d; may succeed later by itself: %s",
  everyRound,
  async ([reason, code, retryable, failing]) => {
    const { url = (good: string) => good, flags = [], listen } = failing;
    const database = await demoDatabase();
    const sidecar = new SidecarProcess({
      databaseUrl: url(database.url),
      flags,
      ...(listen === undefined ? {} : { listen }),
    });

    expect(await sidecar.ended, sidecar.stderr).toEqual({ code, signal: null });

    expect(JSON.parse(sidecar.stdout)).toEqual({
      event: "failed",
      reason,
      message: expect.stringMatching(/\S{3}/),
      retryable,
    });
    expect(sidecar.stdout.split("\n")).toHaveLength(2);
  },
);

test("a schema from a newer release is a failed line and 78", everyRound, async () => {
  const database = await demoDatabase();
  await database.query(
    "insert into plugin_sidecar.migrations (name, run_on) values ('9999_later', now())",
  );
  const sidecar = new SidecarProcess({ databaseUrl: database.url });

  expect(await sidecar.ended).toEqual({ code: 78, signal: null });

  expect(JSON.parse(sidecar.stdout)).toMatchObject({ event: "failed", retryable: false });
});

test("a file that can't be read is a failed line and 78", everyRound, async () => {
  const sidecar = new SidecarProcess({
    databaseUrl: "",
    flags: ["--database-url-file", "/no/such/file"],
  });

  expect(await sidecar.ended).toEqual({ code: 78, signal: null });

  expect(JSON.parse(sidecar.stdout)).toMatchObject({ event: "failed", retryable: false });
});

test(
  "a database URL in a file shows in no line, and neither does its password",
  everyRound,
  async () => {
    const file = join(scratch(), "url");
    writeFileSync(file, "postgres://u:hunter2@127.0.0.1:1/x\n");
    const sidecar = new SidecarProcess({
      databaseUrl: "",
      flags: ["--database-url-file", file, "--fail-fast", "--log-level", "trace"],
    });

    expect(await sidecar.ended).toEqual({ code: 69, signal: null });

    expect(sidecar.stdout + sidecar.stderr).not.toContain("hunter2");
  },
);
