import { constants } from "node:fs";
import { chmod, copyFile, mkdir, readdir, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { BinaryPackage } from "./binary-package.ts";
import { EmbeddedError, unlessCode } from "./embedded-error.ts";
import type { EmbeddedLog } from "./embedded-log.ts";
import { libraryLinks } from "./library-links.ts";
import { makeWhole } from "./unfinished.ts";

/**
 * Copies the package (about 60 MB) into the data directory, readable by everybody and with its
 * library links made, and returns the copy's `native` directory. It appears by a rename, so it is
 * whole or not there, and later starts use it.
 */
export async function copyPackage(
  found: BinaryPackage,
  dataDir: string,
  log: EmbeddedLog,
  signal: AbortSignal,
): Promise<string> {
  const copy = join(dataDir, `postgres-${found.id}`);
  if (copy.includes('"')) throw quoteInPath(dataDir);
  if (await isDirectory(copy)) return copy;
  log.info(
    { from: found.native, to: copy },
    "copying the PostgreSQL programs to where the server's account can run them",
  );
  await makeWhole(copy, signal, async (unfinished) => {
    await copyTree(found.native, unfinished);
    await makeLinks(found, unfinished);
  });
  return copy;
}

/** initdb runs postgres by a shell and puts its path between double quotes, unescaped. */
function quoteInPath(dataDir: string): EmbeddedError {
  return new EmbeddedError(
    "data_dir_unusable",
    `the data directory ${dataDir} has a double quote in its path, and PostgreSQL's programs, which have to be copied there, can't be run from such a path`,
    { hint: "choose a directory without one" },
  );
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyTree(source, target);
    // Links are made from the package's list; *.a are for linking programs.
    else if (entry.isFile() && !entry.name.endsWith(".a")) await copyProgram(source, target);
  }
}

async function copyProgram(source: string, target: string): Promise<void> {
  await copyFile(source, target, constants.COPYFILE_FICLONE);
  await chmod(target, (await stat(source)).mode & 0o100 ? 0o755 : 0o644);
}

async function makeLinks(found: BinaryPackage, copy: string): Promise<void> {
  for (const { source, target } of await libraryLinks(found)) {
    const at = join(copy, relative("native", target));
    await symlink(relative(dirname(target), source), at).catch(unlessCode("EEXIST"));
  }
}

function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
