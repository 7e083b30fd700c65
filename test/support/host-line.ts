import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** What `serve` says on stdout: its only line. */
export interface HostLine {
  readonly event: "ready" | "failed";
  readonly pid: number;
  readonly bindings: readonly {
    readonly plugin: string;
    readonly pluginId: string | null;
    readonly address: string;
  }[];
  readonly healthAddress?: string;
  readonly reason?: string;
  readonly retryable?: boolean;
}

/** The line of a sidecar that only started; fails if it ends without one. */
export async function hostLine(child: ChildProcess): Promise<HostLine> {
  const lines = createInterface({ input: child.stdout! });
  const none = once(lines, "close").then(() =>
    Promise.reject(new Error("it ended without a line")),
  );
  const [line] = await Promise.race([once(lines, "line"), none]);
  return JSON.parse(line);
}

/** The same of a sidecar that has to be ready. */
export async function readyLine(child: ChildProcess): Promise<HostLine> {
  const line = await hostLine(child);
  if (line.event !== "ready") {
    throw new Error(`the sidecar didn't start: ${JSON.stringify(line)}`);
  }
  return line;
}
