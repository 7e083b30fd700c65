import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { createInterface } from "node:readline";
import { expect } from "vitest";
import { readyLine } from "./host-line.ts";

interface Memory {
  readonly heapUsed: number;
  readonly arrayBuffers: number;
}

// What is reported of its memory doesn't depend on what V8 has decided, by what it saw, to make old at once.
const nodeFlags = [
  "--expose-gc",
  "--no-allocation-site-pretenuring",
  "--import",
  "./test/support/report-heap.js",
];

/** The real command in a process of its own, of which it is known what it keeps. */
export class WatchedSidecar implements AsyncDisposable {
  /** The lines it wrote on stderr. */
  readonly log: string[] = [];
  readonly #child: ChildProcess;
  #address = "";

  private constructor(databaseUrl: string, flags: readonly string[]) {
    const serve = ["serve", "--plugin", "demo", "--listen", "127.0.0.1:0", ...flags];
    this.#child = spawn(process.execPath, [...nodeFlags, "dist/main.js", ...serve], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, DATABASE_URL: databaseUrl },
    });
    createInterface({ input: this.#child.stderr! }).on("line", (line) => void this.log.push(line));
  }

  /** Serves plugin `demo` of a database; returns when it's ready. */
  static async start(databaseUrl: string, ...flags: string[]): Promise<WatchedSidecar> {
    const sidecar = new WatchedSidecar(databaseUrl, flags);
    sidecar.#address = (await readyLine(sidecar.#child)).bindings[0]!.address;
    return sidecar;
  }

  get address(): string {
    return this.#address;
  }

  /** How its process ended, if it did. */
  get end(): number | NodeJS.Signals | null {
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  /** Has it do nothing until `work` is done: what comes meanwhile it finds all at once. */
  async stoppedDuring(work: () => Promise<void>): Promise<void> {
    this.#child.kill("SIGSTOP");
    try {
      await work();
    } finally {
      this.#child.kill("SIGCONT");
    }
  }

  /** What its heap holds, in bytes, after full collections. */
  async heapUsed(): Promise<number> {
    return (await this.memory("full")).heapUsed;
  }

  /** What it uses, in bytes, after full collections, or after collections of what is young alone. */
  async memory(collections: "full" | "young"): Promise<Memory> {
    const from = this.log.length;
    this.#child.kill(collections === "full" ? "SIGUSR2" : "SIGWINCH");
    const found = () => this.log.slice(from).find((line) => line.startsWith('{"heapUsed"'));
    await expect.poll(found, { timeout: 30_000 }).toBeDefined();
    return JSON.parse(found()!);
  }

  /** Its open sockets; 0 where the system doesn't tell. */
  sockets(): number {
    const directory = `/proc/${this.#child.pid}/fd`;
    if (!existsSync(directory)) return 0;
    return readdirSync(directory).filter((fd) => {
      try {
        return readlinkSync(`${directory}/${fd}`).startsWith("socket:");
      } catch {
        return false;
      }
    }).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.end === null) {
      this.#child.kill("SIGKILL");
      await once(this.#child, "exit");
    }
  }
}
