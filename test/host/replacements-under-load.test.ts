import { expect, test } from "vitest";
import { demoDatabase } from "./contract.ts";
import { holdSocket } from "./held-socket.ts";
import { pythonWorker } from "./python-worker.ts";
import { restartTimeout, shareOfRestarts } from "./restarts.ts";
import { SidecarProcess } from "./sidecar-process.ts";
import { expectExactly, nodeWorker, type Program, WorkerProcess } from "./worker-process.ts";

test(
  "a sidecar is replaced on the socket it inherited: a writing worker has nothing to retry and loses nothing",
  restartTimeout,
  () => replaceInTurn(nodeWorker, shareOfRestarts(0.5)),
);

test.skipIf(pythonWorker === undefined)(
  "a sidecar is replaced on the socket it inherited, and a worker on gRPC's C core has nothing to retry either",
  restartTimeout,
  () => replaceInTurn(pythonWorker!, shareOfRestarts(0.1)),
);

/** Each next one is ready before the last one drains; the host holds the socket. */
async function replaceInTurn(program: Program, rounds: number): Promise<void> {
  const database = await demoDatabase();
  const { fd, address } = holdSocket();
  const start = (...flags: string[]) =>
    new SidecarProcess({
      databaseUrl: database.url,
      flags,
      listen: "fd:3",
      stdio: ["ignore", "pipe", "pipe", fd],
    });
  let serving = start();
  expect(await serving.address()).toBe(address);
  const worker = new WorkerProcess(program, address);
  await worker.acknowledges(20);
  for (let n = 0; n < rounds; n++) {
    const next = start("--accept-when-ready");
    await next.line();
    expect(await serving.stop(), serving.stderr).toEqual({ code: 0, signal: null });
    serving = next;
    await worker.acknowledges(5);
  }
  const told = await worker.stop();
  console.info(`${rounds} replacements: ${told.acknowledged} writes, ${told.retried} retried`);
  await expectExactly(database, told);
  expect(told.retried).toBe(0);
}
