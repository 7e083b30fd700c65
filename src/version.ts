import { readFileSync } from "node:fs";

/**
 * The release, from package.json. That file is one folder above this module both in the sources
 * (src/) and in an installed package (dist/).
 */
export const version: string = readVersion();

function readVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  // package.json is ours and ships with the code: its shape is known.
  return (JSON.parse(text) as { version: string }).version;
}
