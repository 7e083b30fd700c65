import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { holdSocket } from "./held-socket.ts";
import { pythonWorker } from "./python-worker.ts";
import { SidecarProcess } from "./sidecar-process.ts";
import { expectExactly, nodeWorker, type Program, WorkerProcess } from "./worker-process.ts";

/** How many restarts there are in all, shared by the tests as their names say. */
const restarts = Number(process.env["PLUGIN_STATE_RESTARTS"] ?? 10);
/** A start takes less than a second, on a busy machine a few. */
const timeout = 60_000 + restarts * 5_000;

const share = (part: number) => Math.max(1, Math.round(restarts * part));

async function database(): Promise<TestDatabase> {
  const made = await testDatabase();
  onTestFinished(() => made[Symbol.asyncDispose]());
  await made.addPlugin("demo");
  return made;
}

/** Each next one is ready before the last one drains; the host holds the socket. */
async function replaceInTurn(program: Program, rounds: number): Promise<void> {
  const data = await database();
  const { fd, address } = holdSocket();
  const start = () =>
    new SidecarProcess({
      databaseUrl: data.url,
      listen: "fd:3",
      stdio: ["ignore", "pipe", "pipe", fd],
    });
  let serving = start();
  expect(await serving.address()).toBe(address);
  const worker = new WorkerProcess(program, address);
  await worker.acknowledges(20);
  for (let n = 0; n < rounds; n++) {
    const next = start();
    await next.line();
    expect(await serving.stop(), serving.stderr).toEqual({ code: 0, signal: null });
    serving = next;
    await worker.acknowledges(5);
  }
  const told = await worker.stop();
  console.info(`${rounds} replacements: ${told.acknowledged} writes, ${told.retried} retried`);
  await expectExactly(data, told);
  expect(told.retried).toBe(0);
}

test(
  "of 1,000 restarts, 600: a sidecar is replaced on the socket it inherited, and a writing worker has nothing to retry and loses nothing",
  {
    timeout,
  },
  () => replaceInTurn(nodeWorker, share(0.6)),
);

test.skipIf(pythonWorker === undefined)(
  "of 1,000 restarts, 100: so it is for a worker on gRPC's C core",
  { timeout },
  () => replaceInTurn(pythonWorker!, share(0.1)),
);

test.for([
  ["of 1,000 restarts, 200: a sidecar drains, then the next one starts on", "SIGTERM", 0.2],
  ["of 1,000 restarts, 100: a sidecar is killed, then the next one starts on", "SIGKILL", 0.1],
] as const)(
  "%s the same unix socket; the worker's retry policy absorbs it, and nothing is lost or done twice",
  { timeout },
  async ([, signal, part]) => {
    const data = await database();
    const listen = `unix:${join(scratch(), "a.sock")}`;
    const start = () =>
      new SidecarProcess({ databaseUrl: data.url, listen, stdio: ["ignore", "pipe", "pipe"] });
    let serving = start();
    const worker = new WorkerProcess(nodeWorker, await serving.address());
    await worker.acknowledges(20);
    for (let n = 0; n < share(part); n++) {
      await serving.stop(signal);
      serving = start();
      await serving.address();
      await worker.acknowledges(5);
    }
    const told = await worker.stop();
    console.info(
      `${share(part)} × ${signal}: ${told.acknowledged} writes, ${told.retried} retried`,
    );
    await expectExactly(data, told);
  },
);

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "restarts-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
