import { constants } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { type RunAs, serverUid } from "./account.ts";
import { EmbeddedError, unlessCode } from "./embedded-error.ts";

/**
 * Makes a directory that only the server's account can enter (0700), or checks one that exists.
 * Throws EmbeddedError `directory_taken` when it is another account's, or no directory. Works on an
 * open handle, so that nobody can put a symbolic link in its place between the check and the chown.
 */
export async function makePrivateDir(path: string, account: RunAs): Promise<void> {
  await mkdir(path, { mode: 0o700 }).catch(unlessCode("EEXIST"));
  const handle = await open(
    path,
    constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
  ).catch((error: unknown) => {
    throw taken(path, error);
  });
  try {
    const owner = (await handle.stat()).uid;
    // Our own, just made by us or by another sidecar that hasn't come to its chown yet.
    if (account !== undefined && owner === process.geteuid?.())
      await handle.chown(account.uid, account.gid);
    else if (owner !== serverUid(account)) throw taken(path, `its owner is uid ${owner}`);
    await handle.chmod(0o700);
  } finally {
    await handle.close();
  }
}

function taken(path: string, cause: unknown): EmbeddedError {
  return new EmbeddedError(
    "directory_taken",
    `${path} isn't a directory of the account that runs the server`,
    {
      hint: "remove it if nobody needs it, or choose another data directory",
      cause,
    },
  );
}
