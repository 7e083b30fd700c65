import { ExitCode } from "../start-error.ts";
import { version } from "../version.ts";
import { print } from "./output.ts";

/** What `version` and `--version` print. */
export function versionText(): string {
  const { platform, arch } = process;
  return `plugin-state ${version}\nnode ${process.versions.node} ${platform} ${arch}\n`;
}

/** `plugin-state version`. */
export async function printVersion(): Promise<number> {
  await print(versionText());
  return ExitCode.ok;
}
