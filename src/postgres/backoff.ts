import { setTimeout as sleep } from "node:timers/promises";

const firstMs = 2;
const maxMs = 100;

/** How long to wait before attempt n (from 0): 2 ms doubling to 100 ms, of which a random half to all. */
export function backoffMs(attempt: number): number {
  const ceiling = Math.min(maxMs, firstMs * 2 ** attempt);
  return ceiling / 2 + (Math.random() * ceiling) / 2;
}

/** Waits before the next attempt. */
export async function pause(attempt: number, signal?: AbortSignal): Promise<void> {
  await sleep(backoffMs(attempt), undefined, signal === undefined ? {} : { signal });
}
