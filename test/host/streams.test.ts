import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { healthOf } from "../support/health.ts";
import { demoDatabase, dialState, everyRound, name, patiently } from "./contract.ts";
import { holdSocket } from "./held-socket.ts";
import { SidecarProcess } from "./sidecar-process.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const logsEveryCall = ["--slow-call-ms", "0"];

test.for(["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])(
  "a sidecar started with %s serves, and drains with 0",
  everyRound,
  async (closed) => {
    const { url } = await demoDatabase();
    const { fd, address } = holdSocket();
    const command = `exec "$0" "$@" ${closed}`;
    const serve = [main, "serve", "--plugin", "demo", "--listen", "fd:3", ...logsEveryCall];
    const child = spawn("/bin/sh", ["-c", command, process.execPath, ...serve], {
      stdio: ["pipe", "ignore", "ignore", fd],
      env: { ...process.env, DATABASE_URL: url },
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    child.stdin!.on("error", () => {});
    const ended = once(child, "exit");
    await expect.poll(() => healthOf(address), patiently).toBe("SERVING");
    await dialState(address).call("set", { ...name, valueJson: "1" });

    child.kill("SIGTERM");

    expect(await ended).toEqual([0, null]);
  },
);

test.for(["stdin", "stdout", "stderr"] as const)(
  "a host that closes its end of %s while calls are logged is no reason to end, or to wait",
  everyRound,
  async (stream) => {
    const { url } = await demoDatabase();
    const sidecar = new SidecarProcess({ databaseUrl: url, flags: logsEveryCall });
    const client = dialState(await sidecar.address());
    const calls = Array.from({ length: 100 }, () => client.call("get", name));

    sidecar.child[stream]!.destroy();

    await Promise.all(calls);
    await Promise.all(Array.from({ length: 100 }, () => client.call("get", name)));
    sidecar.child.kill("SIGTERM");
    expect(await once(sidecar.child, "exit")).toEqual([0, null]);
  },
);

test(
  "a host that stops reading stderr blocks nothing, and hears how many lines it missed",
  everyRound,
  async () => {
    const { url } = await demoDatabase();
    const sidecar = new SidecarProcess({ databaseUrl: url, flags: logsEveryCall });
    const client = dialState(await sidecar.address());
    sidecar.child.stderr!.pause();

    // More than a pipe and the sidecar's own buffer hold: a line has about 150 bytes.
    for (let n = 0; n < 80; n++) {
      await Promise.all(Array.from({ length: 120 }, () => client.call("get", name)));
    }
    sidecar.child.stderr!.resume();
    const more = setInterval(() => void client.call("get", name).catch(() => {}), 20);
    onTestFinished(() => clearInterval(more));
    await sidecar.logged("log lines dropped");

    expect(sidecar.isRunning).toBe(true);
    clearInterval(more);
    expect(await sidecar.stop()).toEqual({ code: 0, signal: null });
  },
);

test("a host that has stopped reading stderr can still stop it", everyRound, async () => {
  const { url } = await demoDatabase();
  const sidecar = new SidecarProcess({ databaseUrl: url, flags: logsEveryCall });
  const client = dialState(await sidecar.address());
  sidecar.child.stderr!.pause();
  for (let n = 0; n < 10; n++) {
    await Promise.all(Array.from({ length: 120 }, () => client.call("get", name)));
  }

  sidecar.child.kill("SIGTERM");

  expect(await once(sidecar.child, "exit")).toEqual([0, null]);
  sidecar.child.stderr!.resume();
});
