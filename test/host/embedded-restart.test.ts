import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { dialState, everyRound, name } from "./contract.ts";
import { SidecarProcess, type Start } from "./sidecar-process.ts";

/** How sidecars are started that share an embedded PostgreSQL. */
function sharing(): Start {
  const dataDir = join(tmpdir(), `ps-host-${randomBytes(6).toString("hex")}`);
  onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }));
  return { databaseUrl: "", flags: ["--data-dir", dataDir] };
}

test.for(["SIGTERM", "SIGKILL"] as const)(
  "a sidecar that started the embedded PostgreSQL may go, by %s, while others use it",
  everyRound,
  async (signal) => {
    const start = sharing();
    const starter = new SidecarProcess(start);
    await starter.address();
    const other = new SidecarProcess(start);
    const client = dialState(await other.address());
    let isOver = false;
    const writing = (async () => {
      let n = 0;
      for (; !isOver; n++) await client.call("set", { ...name, valueJson: `${n}` });
      return n - 1;
    })();

    await starter.stop(signal);
    const next = new SidecarProcess(start);
    const reader = dialState(await next.address());
    isOver = true;
    const last = await writing;

    expect((await reader.call("get", name)).entry?.valueJson).toBe(`${last}`);
    expect(await next.stop()).toEqual({ code: 0, signal: null });
    expect(await other.stop()).toEqual({ code: 0, signal: null });
  },
);
