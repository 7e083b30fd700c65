/** Restarts in all tests of restarts under load together. */
const restarts = Number(process.env["PLUGIN_STATE_RESTARTS"] ?? 10);

/** How many of them one test makes. */
export function shareOfRestarts(part: number): number {
  return Math.max(1, Math.round(restarts * part));
}

/** A start takes less than a second, on a busy machine a few. */
export const restartTimeout = { timeout: 60_000 + restarts * 5_000 };
