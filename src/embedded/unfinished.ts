import { mkdtemp, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errorCode } from "./embedded-error.ts";

const suffix = ".unfinished-";
// initdb and the copy take seconds; what is this old belongs to a sidecar that was killed.
const leftoverAfterMs = 60 * 60 * 1000;

/**
 * Makes a directory so that it is whole or not there: `fill` works in a directory beside `path`, which then takes its
 * name. When another sidecar was faster, its directory stays and ours is removed, as it is when `fill` fails.
 */
export async function makeWhole(
  path: string,
  fill: (unfinished: string) => Promise<void>,
): Promise<void> {
  const unfinished = await mkdtemp(path + suffix);
  try {
    await fill(unfinished);
    await rename(unfinished, path).catch(unlessTaken);
    await sync(dirname(path));
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
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
