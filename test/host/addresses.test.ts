import type { StdioOptions } from "node:child_process";
import { existsSync, lstatSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { healthOf } from "../support/health.ts";
import { FaultProxy } from "../support/proxy.ts";
import { demoDatabase, dialState, everyRound, name, patiently, scratch } from "./contract.ts";
import { holdSocket } from "./held-socket.ts";
import { SidecarProcess } from "./sidecar-process.ts";

const inUse = { event: "failed", reason: "ADDRESS_IN_USE", retryable: true };

test.for(["TCP port", "unix socket"])(
  "a second sidecar on the same %s is refused with 73, and the first one serves on",
  everyRound,
  async (kind) => {
    const { url: databaseUrl } = await demoDatabase();
    const listen = kind === "TCP port" ? "127.0.0.1:0" : `unix:${join(scratch(), "a.sock")}`;
    const first = new SidecarProcess({ databaseUrl, listen });
    const address = await first.address();

    const second = new SidecarProcess({ databaseUrl, listen: address });

    expect(await second.ended).toEqual({ code: 73, signal: null });
    expect(JSON.parse(second.stdout)).toMatchObject(inUse);
    expect(await healthOf(address)).toBe("SERVING");
  },
);

test(
  "a unix socket is there for its owner alone, and gone when the sidecar has stopped",
  everyRound,
  async () => {
    const { url: databaseUrl } = await demoDatabase();
    const path = join(scratch(), "run", "a.sock");
    const sidecar = new SidecarProcess({ databaseUrl, listen: `unix:${path}` });

    expect(await sidecar.address()).toBe(`unix://${path}`);

    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    expect(lstatSync(join(path, "..")).mode & 0o777).toBe(0o700);
    await sidecar.stop();
    expect(existsSync(path)).toBe(false);
  },
);

test(
  "a socket file that a killed sidecar left is replaced by the next one",
  everyRound,
  async () => {
    const { url: databaseUrl } = await demoDatabase();
    const path = join(scratch(), "a.sock");
    const listen = `unix:${path}`;
    const killed = new SidecarProcess({ databaseUrl, listen });
    await killed.address();
    await killed.stop("SIGKILL");
    expect(existsSync(path)).toBe(true);

    const next = new SidecarProcess({ databaseUrl, listen });

    await dialState(await next.address()).call("set", { ...name, valueJson: "1" });
  },
);

test(
  "a socket file is taken over while the old sidecar still drains, and its end doesn't remove it",
  everyRound,
  async () => {
    const { url: databaseUrl } = await demoDatabase();
    const path = join(scratch(), "a.sock");
    const listen = `unix:${path}`;
    const first = new SidecarProcess({ databaseUrl, listen });
    await first.address();

    first.child.kill("SIGTERM");
    await expect.poll(() => existsSync(path), patiently).toBe(false);
    const second = new SidecarProcess({ databaseUrl, listen });
    const address = await second.address();
    await first.ended;

    await dialState(address).call("set", { ...name, valueJson: "1" });
  },
);

test(
  "an inherited socket keeps its port from one sidecar to the next, and between them callers wait",
  everyRound,
  async () => {
    const { url: databaseUrl } = await demoDatabase();
    const { fd, address } = holdSocket();
    const stdio = ["ignore", "pipe", "pipe", fd] as const;
    const start = () => new SidecarProcess({ databaseUrl, listen: "fd:3", stdio: [...stdio] });
    const first = start();
    expect(await first.address()).toBe(address);
    await first.stop();

    // Nobody accepts now: the connection waits in the socket's queue.
    const answer = healthOf(address);
    const second = start();

    expect(await second.address()).toBe(address);
    expect(await answer).toMatch(/SERVING/);
  },
);

test(
  "with --accept-when-ready a sidecar takes no connection from the one that serves on the same socket, until it's ready",
  everyRound,
  async () => {
    const { url } = await demoDatabase();
    const proxy = await FaultProxy.before(url);
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    const through = proxy.through(url);
    await proxy.close();
    const { fd, address } = holdSocket();
    const inherited = { listen: "fd:3", stdio: ["ignore", "pipe", "pipe", fd] as StdioOptions };
    const old = new SidecarProcess({ ...inherited, databaseUrl: url });
    await old.address();

    const next = new SidecarProcess({
      ...inherited,
      databaseUrl: through,
      flags: ["--accept-when-ready"],
    });
    await next.logged("waiting for the database");

    // Each a connection of its own. Of the next one's they would be UNAVAILABLE.
    const calls = Array.from({ length: 30 }, () => dialState(address).call("get", name));
    await Promise.all(calls);
    await proxy.open();
    expect(await next.address()).toBe(address);
    await old.stop();
    await dialState(address).call("get", name);
  },
);
