import { readFileSync } from "node:fs";
import { ExitCode, StartError } from "../start-error.ts";

/**
 * Reads a file that an option names.
 *
 * @param name The option, as it was given.
 * @throws {StartError} that names the option, the file and the system's reason.
 */
export function readTextFile(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const denied = code === "EACCES" || code === "EPERM";
    throw new StartError("FILE_UNREADABLE", `${name}: can't read ${path} (${code})`, {
      exitCode: denied ? ExitCode.noPermission : ExitCode.configuration,
      cause: error,
    });
  }
}
