import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { CallError, TestClient } from "../support/client.ts";
import type { TestDatabase } from "../support/database.ts";
import { type HostLine, readyLine } from "../support/host-line.ts";
import { BindingsFile, type Configuration, type Transport, transports } from "./bindings-file.ts";

/** How a process ended. */
export interface End {
  readonly code: number | null;
  readonly signal: string | null;
}

type Logged = Readonly<Record<string, unknown>>;

const initial: Configuration = {
  present: transports,
  token: "a-token-that-is-good-at-first",
  maxValueBytes: 5 * 1024 * 1024,
};

const logLines = 30;
/** How long a call may take on a machine that is busy with large replies. */
const patienceMs = 10_000;
const bystanderEveryMs = 20;

/**
 * The real command in a process of its own, with a binding for each transport, and one of plugin
 * `bystander`, which is called all the time.
 */
export class Victim implements AsyncDisposable {
  readonly healthAddress: string;
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #file: BindingsFile;
  readonly #ended: Promise<End>;
  readonly #log: string[] = [];
  readonly #reloads: Logged[] = [];
  readonly #bystander: TestClient;
  readonly #calls: Promise<void>;
  #isCalling = true;
  #answered = 0;
  #bindings: HostLine["bindings"];
  #configuration = initial;

  private constructor(child: ChildProcess, ready: HostLine, directory: string, file: BindingsFile) {
    this.healthAddress = ready.healthAddress ?? "";
    this.#child = child;
    this.#directory = directory;
    this.#file = file;
    this.#bindings = ready.bindings;
    this.#ended = once(child, "exit").then(([code, signal]) => ({ code, signal }));
    createInterface({ input: child.stderr! }).on("line", (line) => this.#take(line));
    this.#bystander = new TestClient(file.bystanderAddress);
    this.#calls = this.#callBystander();
    // Whoever waits for it hears of it.
    this.#calls.catch(() => undefined);
  }

  static async start({ environment }: TestDatabase, ...flags: string[]): Promise<Victim> {
    const directory = mkdtempSync(join(tmpdir(), "cuts-"));
    const file = await BindingsFile.in(directory);
    file.write(initial);
    const health = ["--health-listen", "127.0.0.1:0"];
    const args = ["dist/main.js", "serve", "--config", file.path, ...health, ...flags];
    const child = spawn(process.execPath, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...environment },
    });
    return new Victim(child, await readyLine(child), directory, file);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  addressOf(transport: Transport): string {
    return this.#bindings.find(({ plugin }) => plugin === transport)?.address ?? "";
  }

  /** What a call must carry now. */
  get authorization(): string {
    return `Bearer ${this.#configuration.token}`;
  }

  /** Has each binding made anew: what it was served by is drained and cut. */
  async renew(): Promise<void> {
    const maxValueBytes = this.#configuration.maxValueBytes + 1;
    expect(await this.#reload({ maxValueBytes })).toMatchObject({ changed: 3, failed: 0 });
  }

  async removeBindings(): Promise<void> {
    expect(await this.#reload({ present: [] })).toMatchObject({ removed: 3, failed: 0 });
  }

  async addBindings(): Promise<void> {
    expect(await this.#reload({ present: transports })).toMatchObject({ added: 3, failed: 0 });
  }

  /** From now on another token is good. */
  async withdrawToken(): Promise<void> {
    const token = `${this.#configuration.token}-`;
    expect(await this.#reload({ token })).toMatchObject({ failed: 0 });
  }

  signal(signal: NodeJS.Signals): void {
    this.#isCalling = false;
    this.#child.kill(signal);
  }

  /** How it ended; of one that doesn't, a failure. */
  async ended(): Promise<End> {
    const late = sleep(30_000, undefined, { ref: false }).then(() =>
      Promise.reject(new Error(`it doesn't end: ${this.condition()}`)),
    );
    return await Promise.race([this.#ended, late]);
  }

  /** Fails unless it runs, and the bystander has been answered all the time, and is once more. */
  async isWell(): Promise<void> {
    const before = this.#answered;
    while (this.#answered === before) {
      await Promise.race([sleep(bystanderEveryMs), this.#calls]);
    }
  }

  /** Whether it runs, and what it said last on stderr: for a test that failed. */
  condition(): string {
    const end = this.#child.exitCode ?? this.#child.signalCode;
    const now = end === null ? "runs" : `ended with ${end}`;
    return `the sidecar ${now}; its log:\n${this.#log.join("\n")}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isCalling = false;
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGKILL");
      await this.#ended;
    }
    await this.#calls.catch(() => undefined);
    this.#bystander[Symbol.dispose]();
    rmSync(this.#directory, { recursive: true });
  }

  async #callBystander(): Promise<void> {
    const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
    while (this.#isCalling) {
      try {
        await this.#bystander.call("get", name, { deadlineMs: patienceMs });
      } catch (cause) {
        if (!this.#isCalling) return;
        if (isAnswer(cause)) continue;
        // Its end, if that is why, is known a moment later.
        await Promise.race([this.#ended, sleep(1_000)]);
        throw new Error(`the bystander wasn't answered: ${this.condition()}`, { cause });
      }
      this.#answered += 1;
      await sleep(bystanderEveryMs);
    }
  }

  async #reload(change: Partial<Configuration>): Promise<Logged> {
    this.#configuration = { ...this.#configuration, ...change };
    this.#file.write(this.#configuration);
    const count = this.#reloads.length;
    this.#child.kill("SIGHUP");
    while (this.#reloads.length === count) {
      await Promise.race([sleep(bystanderEveryMs), this.#calls]);
    }
    const outcome = this.#reloads.at(-1)!;
    this.#bindings = outcome["bindings"] as HostLine["bindings"];
    return outcome;
  }

  #take(line: string): void {
    this.#log.push(line);
    this.#log.splice(0, this.#log.length - logLines);
    const logged: Logged = line.startsWith("{") ? JSON.parse(line) : {};
    if (logged["msg"] === "read the configuration again") this.#reloads.push(logged);
  }
}

/** What is slow on a busy machine is the database, or a call that may be a second old: its binding answers. */
function isAnswer(error: unknown): boolean {
  const slow = ["DEADLINE_EXCEEDED", "DATABASE_UNAVAILABLE"];
  return error instanceof CallError && slow.includes(error.reason ?? "");
}
