import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/**
 * What a client does once its requests are sent: `reads` like any other; `unread`, it reads its socket,
 * but no reply, so that windows stay closed; `blocked`, it reads nothing for a while, and then all;
 * `slow`, a bit now and then; `vanishes`, it reads nothing and is killed; `frozen`, it is stopped.
 */
export type Behaviour = "reads" | "unread" | "blocked" | "slow" | "vanishes" | "frozen";

/** Some calls of one method. */
export interface Calls {
  readonly path: string;
  /** With its prefix, in base64. */
  readonly message: string;
  readonly count: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** What one client does. */
export interface Script {
  readonly behaviour: Behaviour;
  /** Of each stream, and of each connection, in bytes. */
  readonly window: number;
  /** How long `blocked` and `vanishes` read nothing. */
  readonly blockedMs: number;
  readonly connections: readonly {
    readonly address: string;
    readonly isSecure: boolean;
    readonly calls: readonly Calls[];
  }[];
}

const program = fileURLToPath(new URL("client.js", import.meta.url));

/** A client in a process of its own, which has sent its requests. */
export class BadClient implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(script: Script): Promise<BadClient> {
    const child = spawn(process.execPath, [program, JSON.stringify(script)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const client = new BadClient(child);
    const ended = once(child, "exit").then(() => Promise.reject(new Error("the client ended")));
    // It may also end later, when nobody waits for it.
    ended.catch(() => undefined);
    await Promise.race([once(child.stdout!, "data"), ended]);
    return client;
  }

  /** Lets a frozen one go on. */
  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGKILL");
      await once(this.#child, "exit");
    }
  }
}
