import { constants } from "node:fs";
import { type FileHandle, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";

// Some 50,000 lines. The file before it is kept as postgres.log.1, so twice this is the most.
const maxLogBytes = 5 * 1024 * 1024;
const tailBytes = 4096;
const tailLines = 12;

/** The server's log, opened for one start of it. */
export interface ServerLog {
  /**
   * For the server's standard output and error: a file, not a pipe, so that our death doesn't
   * trouble it.
   */
  readonly handle: FileHandle;
  /** Where this start's lines begin. */
  readonly startBytes: number;
}

/** The path of the server's log. */
export function serverLogPath(dataDir: string): string {
  return join(dataDir, "postgres.log");
}

/**
 * Opens the log to append to, after putting aside one that has grown too long. Follows no symbolic
 * link.
 */
export async function openServerLog(path: string): Promise<ServerLog> {
  const sizeBytes = await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
  if (sizeBytes > maxLogBytes) await rename(path, `${path}.1`);
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
  const handle = await open(path, flags, 0o600);
  return { handle, startBytes: (await handle.stat()).size };
}

/** The last lines of the log since a start, for an error message; empty if there are none. */
export async function readLogTail(path: string, startBytes: number): Promise<string> {
  const handle = await open(path).catch(() => undefined);
  if (handle === undefined) return "";
  try {
    const endBytes = (await handle.stat()).size;
    const from = Math.max(startBytes, endBytes - tailBytes);
    const { buffer, bytesRead } = await handle.read({
      position: from,
      buffer: Buffer.alloc(tailBytes),
    });
    return buffer
      .subarray(0, bytesRead)
      .toString("utf8")
      .trim()
      .split("\n")
      .slice(-tailLines)
      .join("\n");
  } finally {
    await handle.close();
  }
}
