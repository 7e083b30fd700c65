import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import type { HostLine } from "../support/host-line.ts";

const main = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/** How a process ended. */
export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** How to start a sidecar. */
export interface Start {
  /** Empty: the embedded one. */
  readonly databaseUrl: string;
  /** Of `serve`, beside `--plugin demo` and an address. */
  readonly flags?: readonly string[];
  /** `127.0.0.1:0` unless told. */
  readonly listen?: string;
  /** What the sidecar's descriptors are; pipes and no fourth unless told. */
  readonly stdio?: StdioOptions;
  /** Added to the environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** The real command as a host starts it, with all that it says. It doesn't outlive the test. */
export class SidecarProcess {
  readonly child: ChildProcess;
  /** All of stdout and stderr, where they are pipes. */
  stdout = "";
  stderr = "";
  readonly ended: Promise<End>;
  readonly #waiting = new Set<() => void>();

  constructor({ databaseUrl, flags = [], listen, stdio = "pipe", environment = {} }: Start) {
    const { PATH = "", HOME = "/" } = process.env;
    const address = ["--listen", listen ?? "127.0.0.1:0"];
    this.child = spawn(
      process.execPath,
      [main, "serve", "--plugin", "demo", ...address, ...flags],
      { stdio, env: { PATH, HOME, DATABASE_URL: databaseUrl, ...environment } },
    );
    onTestFinished(() => void this.child.kill("SIGKILL"));
    this.child.stdout?.on("data", (chunk) => {
      this.stdout += chunk;
      this.#wake();
    });
    this.child.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
      this.#wake();
    });
    this.child.stdin?.on("error", () => {});
    this.ended = once(this.child, "close").then(([code, signal]) => ({ code, signal }));
  }

  get pid(): number {
    return this.child.pid!;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The one line on stdout, as soon as it's there; fails if the process ends without it. */
  async line(): Promise<HostLine> {
    await this.#holds(() => this.stdout.includes("\n"), "a line on stdout");
    return JSON.parse(this.stdout.slice(0, this.stdout.indexOf("\n")));
  }

  /** The address of the first binding; fails unless the line says ready. */
  async address(): Promise<string> {
    const line = await this.line();
    if (line.event !== "ready") throw new Error(`the sidecar didn't start: ${this.stdout}`);
    return line.bindings[0]!.address;
  }

  /** Waits for a text in the log; fails if the process ends without it. */
  async logged(text: string): Promise<void> {
    await this.#holds(() => this.stderr.includes(text), text);
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<End> {
    this.child.kill(signal);
    return await this.ended;
  }

  async #holds(isThere: () => boolean, what: string): Promise<void> {
    let hasEnded = false;
    void this.ended.then(() => {
      hasEnded = true;
      this.#wake();
    });
    while (!isThere()) {
      if (hasEnded) throw new Error(`ended without ${what}: ${this.stdout}${this.stderr}`);
      await new Promise<void>((resolve) => void this.#waiting.add(resolve));
    }
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
