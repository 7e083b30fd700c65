import { mkdtemp, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { errorCode } from "./embedded-error.ts";
import { pause } from "./pause.ts";
import { isAlive } from "./postmaster.ts";

const suffix = ".unfinished-";
const maxWaitMs = 10_000;
const pollMs = 50;
// initdb and the copy take seconds; what is this old belongs to a sidecar that was killed.
const leftoverAfterMs = 60 * 60 * 1000;

/**
 * Makes a directory so that it is whole or not there: `fill` works in a directory beside `path`,
 * which then takes its name. When another sidecar was faster, its directory stays and ours is
 * removed, as it is when `fill` fails.
 */
export async function makeWhole(
  path: string,
  signal: AbortSignal,
  fill: (unfinished: string) => Promise<void>,
): Promise<void> {
  if (await appears(path, signal)) return;
  const unfinished = await mkdtemp(`${path}${suffix}${process.pid}-`);
  try {
    await fill(unfinished);
    await rename(unfinished, path).catch(unlessTaken);
    await sync(dirname(path));
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/**
 * Whether another sidecar, at work on the directory already, finishes it. Only to save work: ten
 * at once would take ten times as long (7 s for ten sidecars in an empty directory, on 2 cores).
 */
async function appears(path: string, signal: AbortSignal): Promise<boolean> {
  const until = performance.now() + maxWaitMs;
  while (performance.now() < until && (await isBeingMade(path))) await pause(pollMs, signal);
  return (await readdir(path).catch(() => [])).length > 0;
}

async function isBeingMade(path: string): Promise<boolean> {
  const start = basename(path) + suffix;
  const names = await readdir(dirname(path));
  return names.some((name) => {
    const pid = name.startsWith(start) ? Number.parseInt(name.slice(start.length), 10) : 0;
    return pid > 0 && pid !== process.pid && isAlive(pid);
  });
}

/** Removes what killed sidecars left unfinished. Never one that may still be at work. */
export async function removeLeftovers(dataDir: string): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!name.includes(suffix)) continue;
    const path = join(dataDir, name);
    const found = await stat(path).catch(() => undefined);
    const old = found !== undefined && Date.now() - found.mtimeMs > leftoverAfterMs;
    // Another account's may not let itself be removed; it does no harm.
    if (old) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}

/** Makes the new name survive a power cut, like what it names. */
async function sync(dir: string): Promise<void> {
  const handle = await open(dir);
  await handle.sync().finally(() => handle.close());
}

function unlessTaken(error: unknown): void {
  const code = errorCode(error);
  if (code !== "EEXIST" && code !== "ENOTEMPTY") throw error;
}
