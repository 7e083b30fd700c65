import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { demoDatabase, dialState, everyRound, name } from "./contract.ts";
import { SidecarProcess } from "./sidecar-process.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/** A host: starts the sidecar that its arguments say, holds its stdin, and passes on what it prints. */
const host = `
  import { spawn } from "node:child_process";
  spawn(process.execPath, process.argv.slice(1), { stdio: ["pipe", "inherit", "ignore"] });
  setInterval(() => {}, 1000);
`;

test("a host that is killed takes its sidecar with it", everyRound, async () => {
  const { url } = await demoDatabase();
  const serve = [main, "serve", "--plugin", "demo", "--listen", "127.0.0.1:0"];
  const parent = spawn(
    process.execPath,
    ["--input-type=module", "-e", host, ...serve, "--exit-with-parent"],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, DATABASE_URL: url } },
  );
  onTestFinished(() => void parent.kill("SIGKILL"));
  const [line] = await once(createInterface({ input: parent.stdout }), "line");
  const { pid, bindings } = JSON.parse(line);
  onTestFinished(() => endIfThere(pid));
  await dialState(bindings[0].address).call("set", { ...name, valueJson: "1" });

  // Ended when the last who has it is gone: the sidecar.
  const outputEnded = once(parent.stdout, "close");
  parent.kill("SIGKILL");
  await outputEnded;
});

test(
  "a host that closes stdin gets a drain: the call in flight is answered, and 0",
  everyRound,
  async () => {
    const database = await demoDatabase();
    const sidecar = new SidecarProcess({
      databaseUrl: database.url,
      flags: ["--exit-with-parent"],
    });
    const client = dialState(await sidecar.address());
    const writes = Array.from({ length: 50 }, (_, n) =>
      client.call("set", { ...name, key: `k${n}`, valueJson: "1" }),
    );
    await Promise.race(writes);

    sidecar.child.stdin!.end();

    await Promise.all(writes);
    expect(await sidecar.ended).toEqual({ code: 0, signal: null });
  },
);

test("what a host writes to stdin is ignored", everyRound, async () => {
  const { url } = await demoDatabase();
  const sidecar = new SidecarProcess({ databaseUrl: url, flags: ["--exit-with-parent"] });
  const address = await sidecar.address();

  sidecar.child.stdin!.write("stop\n".repeat(100_000));
  await dialState(address).call("get", name);

  expect(sidecar.isRunning).toBe(true);
  expect(await sidecar.stop()).toEqual({ code: 0, signal: null });
});

function endIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended, as it should.
  }
}
