import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { Account, RunAs } from "./account.ts";
import { EmbeddedError } from "./embedded-error.ts";
import { run } from "./run.ts";

/** Refuses a data directory that the account can't get to, naming the directory in the way. */
export async function requireReach(
  dataDir: string,
  account: RunAs,
  signal: AbortSignal,
): Promise<void> {
  if (account === undefined) return;
  const obstacle = await firstClosed(dataDir, account);
  // Mode bits don't show access lists: where they say no, the kernel has the last word.
  if (obstacle === undefined || (await canEnter(dataDir, account, signal))) return;
  throw new EmbeddedError(
    "data_dir_unreachable",
    `the server runs as ${account.name}, which can't get to the data directory ${dataDir}: ${obstacle} is closed to it`,
    {
      hint: "choose a directory that it can reach, such as root's default /var/lib/plugin-state",
    },
  );
}

/** Whether the mode bits keep the account from entering a directory or running a program. */
export async function isClosedTo(account: RunAs, path: string): Promise<boolean> {
  return account !== undefined && (await firstClosed(path, account)) !== undefined;
}

async function firstClosed(path: string, account: Account): Promise<string | undefined> {
  const parent = dirname(path);
  const above = parent === path ? undefined : await firstClosed(parent, account);
  if (above !== undefined) return above;
  const { uid, gid, mode } = await stat(path);
  const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
  return mode & bit ? undefined : path;
}

async function canEnter(dir: string, account: Account, signal: AbortSignal): Promise<boolean> {
  const shell = await run("/bin/sh", ["-c", 'cd -- "$0"', dir], { account, env: {}, signal });
  return shell.code === 0;
}
