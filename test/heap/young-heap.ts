import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as (options: { type: "major" | "minor" }) => void;

/**
 * How many bytes the heap has grown by when `work` has been done some times, though what was young and not
 * needed any more was collected meanwhile: what is kept until the next full collection. As many times before
 * don't count: code is compiled then.
 */
export async function keptAfter(times: number, work: () => Promise<unknown>): Promise<number> {
  await repeat(times, work);
  collect({ type: "major" });
  const before = process.memoryUsage().heapUsed;
  await repeat(times, work);
  return process.memoryUsage().heapUsed - before;
}

async function repeat(times: number, work: () => Promise<unknown>): Promise<void> {
  for (let n = 1; n <= times; n++) {
    await work();
    if (n % 50 === 0) {
      collect({ type: "minor" });
    }
  }
  // What survives the first is collected by the second.
  collect({ type: "minor" });
  collect({ type: "minor" });
}
