import { fileURLToPath } from "node:url";
import { expect, onTestFinished } from "vitest";
import {
  type SidecarError,
  type SidecarEvent,
  type SidecarOptions,
  type SupervisedSidecar,
  startSidecar,
} from "../../src/supervisor/supervisor.ts";
import type { TestDatabase } from "../support/database.ts";

const oddChild = fileURLToPath(new URL("odd-child.js", import.meta.url));
const mainScript = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/** What the supervisor told its host. */
export interface Told {
  readonly events: SidecarEvent[];
  readonly log: string[];
  /** The events of one type, so far. */
  of<T extends SidecarEvent["type"]>(type: T): Extract<SidecarEvent, { type: T }>[];
}

/** Options for a child that does what its name says; see odd-child.js. */
export function odd(behaviour: string, ...args: string[]): SidecarOptions {
  return {
    command: [process.execPath, oddChild, behaviour, ...args],
    bindings: [{ plugin: "demo" }],
    restart: { initialMs: 1, maxMs: 4 },
  };
}

/** Options for the real `plugin-state serve` on a test's database. */
export function real(database: TestDatabase, ...flags: string[]): SidecarOptions {
  return {
    command: [process.execPath, mainScript, "serve"],
    bindings: [{ plugin: "demo" }],
    databaseUrl: database.url,
    args: flags,
    restart: { initialMs: 20, maxMs: 100 },
    healthPollMs: 20,
  };
}

/** Collects what a host is told. */
export function told(): Told & Pick<SidecarOptions, "onEvent" | "onLog"> {
  const events: SidecarEvent[] = [];
  const log: string[] = [];
  type Of = Told["of"];
  return {
    events,
    log,
    // What filter finds is of the type it was asked for.
    of: ((type) => events.filter((event) => event.type === type)) as Of,
    onEvent: (event) => events.push(event),
    onLog: (line) => log.push(line),
  };
}

/** Starts it; it is stopped at the end of the test, quickly. */
export async function supervise(
  options: SidecarOptions,
): Promise<{ sidecar: SupervisedSidecar; told: Told }> {
  const host = told();
  const sidecar = await startSidecar({
    ...options,
    onEvent: host.onEvent!,
    onLog: host.onLog!,
  });
  onTestFinished(() => sidecar.stop());
  return { sidecar, told: host };
}

/** The error of a start that must fail, and what the host was told. */
export async function failedStart(
  options: SidecarOptions,
): Promise<{ error: SidecarError; told: Told }> {
  const host = told();
  const start = startSidecar({ ...options, onEvent: host.onEvent!, onLog: host.onLog! });
  const error = await start.then(
    () => expect.unreachable("it started"),
    (reason: SidecarError) => reason,
  );
  return { error, told: host };
}

/** Whether a process of this id exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Waits until the process is gone. */
export async function untilGone(pid: number): Promise<void> {
  await expect.poll(() => isAlive(pid), { timeout: 20_000 }).toBe(false);
}
