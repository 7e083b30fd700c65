import { join } from "node:path";
import { test } from "vitest";
import { demoDatabase, scratch } from "./contract.ts";
import { restartTimeout, shareOfRestarts } from "./restarts.ts";
import { SidecarProcess } from "./sidecar-process.ts";
import { expectExactly, nodeWorker, WorkerProcess } from "./worker-process.ts";

test.for([
  ["SIGTERM", 0.3],
  ["SIGKILL", 0.1],
] as const)(
  "a sidecar is stopped by %s and started again on its unix socket: the retry policy absorbs it, and nothing is lost or done twice",
  restartTimeout,
  async ([signal, part]) => {
    const database = await demoDatabase();
    const listen = `unix:${join(scratch(), "a.sock")}`;
    const start = () =>
      new SidecarProcess({
        databaseUrl: database.url,
        listen,
        stdio: ["ignore", "pipe", "pipe"],
      });
    const rounds = shareOfRestarts(part);
    let serving = start();
    const environment = { WORKER_EXPECTS_KILLS: String(signal === "SIGKILL") };
    const worker = new WorkerProcess({ ...nodeWorker, environment }, await serving.address());
    await worker.acknowledges(20);
    for (let n = 0; n < rounds; n++) {
      await serving.stop(signal);
      serving = start();
      await serving.address();
      await worker.acknowledges(5).catch((error) => {
        console.info(serving.stderr);
        throw error;
      });
    }
    const told = await worker.stop();
    console.info(
      `${rounds} × ${signal}: ${told.acknowledged} writes, ${told.retried} retried by the policy`,
    );
    await expectExactly(database, told);
  },
);
