import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

const mainScript = fileURLToPath(new URL("../../dist/main.js", import.meta.url));
const scriptedServe = fileURLToPath(new URL("scripted-serve.js", import.meta.url));

/** What a process said and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process under test; its output is kept from the first byte, and it doesn't outlive the test. */
export class Running {
  readonly child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<Ended>;
  stdout = "";
  stderr = "";

  constructor(script: string, args: readonly string[], environment: Record<string, string>) {
    const { PATH = "", HOME = "/" } = process.env;
    this.child = spawn(process.execPath, [script, ...args], {
      env: { PATH, HOME, ...environment },
    });
    onTestFinished(() => void this.child.kill("SIGKILL"));
    this.child.stdout.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr.on("data", (chunk) => {
      this.stderr += chunk;
    });
    this.#ended = once(this.child, "close").then(([code]) => ({
      code,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
  }

  /** Waits until stdout holds a text; fails when the process ends without it. */
  async printed(text: string): Promise<void> {
    await this.#holds(() => this.stdout.includes(text), text);
  }

  /** Waits until stderr holds a text; fails when the process ends without it. */
  async logged(text: string): Promise<void> {
    await this.#holds(() => this.stderr.includes(text), text);
  }

  ended(): Promise<Ended> {
    return this.#ended;
  }

  async #holds(condition: () => boolean, text: string): Promise<void> {
    while (!condition()) {
      const heard = new AbortController();
      const { signal } = heard;
      const data = [this.child.stdout, this.child.stderr].map((stream) =>
        // Aborted when the other one was first: nobody waits for it any more.
        once(stream, "data", { signal }).catch(() => undefined),
      );
      const more = await Promise.race([...data, this.#ended.then(() => "ended" as const)]);
      heard.abort();
      if (more === "ended" && !condition()) {
        throw new Error(`ended without ${JSON.stringify(text)}: ${this.stdout}${this.stderr}`);
      }
    }
  }
}

/** Runs `plugin-state ARGS` to its end, with nothing in the environment but what is given. */
export function run(
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Ended> {
  return new Running(mainScript, args, environment).ended();
}

/** Starts `serve` around a sidecar that does what its name says; see scripted-serve.js. */
export function startScripted(script: string, args: readonly string[] = []): Running {
  return new Running(scriptedServe, [script, ...args], {});
}
