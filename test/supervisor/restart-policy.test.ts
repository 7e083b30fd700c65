import fc from "fast-check";
import { expect, test } from "vitest";
import { defaultRestartRule, RestartPolicy } from "../../src/supervisor/restart-policy.ts";

/** All waits until it gives up, of a sidecar that is never well. */
function waits(random: () => number): number[] {
  const policy = new RestartPolicy({ ...defaultRestartRule, random });
  const all: number[] = [];
  for (let wait = policy.nextDelayMs(0); wait !== undefined; wait = policy.nextDelayMs(0)) {
    all.push(wait);
  }
  return all;
}

test("waits one second, doubling to five minutes, ten times, and then gives up", () => {
  expect(waits(() => 0.5)).toEqual([
    1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000,
  ]);
});

test("a wait is up to a quarter shorter or longer, and never over five minutes", () => {
  expect(waits(() => 0).slice(0, 3)).toEqual([750, 1_500, 3_000]);
  expect(waits(() => 1).slice(0, 3)).toEqual([1_250, 2_500, 5_000]);
  fc.assert(
    fc.property(fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (chances) => {
      for (const [n, wait] of waits(() => chances.next().value ?? 0).entries()) {
        const middle = Math.min(300_000, 1_000 * 2 ** n);
        expect(wait).toBeGreaterThanOrEqual(middle * 0.75);
        expect(wait).toBeLessThanOrEqual(Math.min(300_000, middle * 1.25));
      }
    }),
  );
});

test("a sidecar that was ready for a minute is restarted as if for the first time", () => {
  const policy = new RestartPolicy({ ...defaultRestartRule, random: () => 0.5 });
  for (let n = 0; n < 10; n++) policy.nextDelayMs(59_999);

  expect(policy.inARow).toBe(10);
  expect(policy.nextDelayMs(60_000)).toBe(1_000);
  expect(policy.inARow).toBe(1);
});
