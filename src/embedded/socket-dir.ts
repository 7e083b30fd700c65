import { createHash } from "node:crypto";
import { readlink, symlink, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunAs } from "./account.ts";
import { errorCode } from "./embedded-error.ts";
import { makePrivateDir } from "./private-dir.ts";

// sun_path, without the closing zero. Node 20 cuts a longer path silently (seen on 20.20.2), so we
// must count.
const maxSocketPathBytes = process.platform === "darwin" ? 103 : 107;
// The longest name we put in it: a presence socket, `sidecar-<pid>-<8 hex digits>`; `.s.PGSQL.5432`
// is shorter.
const maxSocketNameBytes = "/sidecar-4194304-01234567".length;

/**
 * Makes the directory of the server's socket, 0700 because the server trusts whoever gets in. It is
 * `socket` in the data directory. Where that path is too long for a socket, it is a directory in
 * the temporary directory and `socket` a symbolic link to it, so that every sidecar on this data
 * directory finds the same one, whatever its TMPDIR.
 */
export async function makeSocketDir(dataDir: string, account: RunAs): Promise<string> {
  const near = join(dataDir, "socket");
  const short = shortDir(dataDir);
  const path = fits(near) ? near : await linkTarget(near, short);
  try {
    await makePrivateDir(path, account);
    return path;
  } catch (error) {
    // An older link, into a temporary directory that is gone: make it anew.
    if (path === near || path === short || errorCode(error) !== "ENOENT") throw error;
    await unlink(near);
    return makeSocketDir(dataDir, account);
  }
}

function fits(dir: string): boolean {
  return Buffer.byteLength(dir) + maxSocketNameBytes <= maxSocketPathBytes;
}

function shortDir(dataDir: string): string {
  return join(
    tmpdir(),
    `plugin-state-${createHash("sha256").update(dataDir).digest("hex").slice(0, 10)}`,
  );
}

async function linkTarget(link: string, target: string): Promise<string> {
  try {
    await symlink(target, link);
    return target;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return readlink(link);
    throw error;
  }
}
