import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished } from "vitest";
import type { TestDatabase } from "../support/database.ts";

/** What a worker counts. */
export interface Counts {
  readonly acknowledged: number;
  /** Acknowledged calls that its retry policy repeated. */
  readonly retried: number;
  /** What its retry policy didn't absorb. */
  readonly failed: readonly string[];
}

/** All that a worker was told. */
export interface Told extends Counts {
  readonly sets: Readonly<Record<string, string>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly lists: Readonly<Record<string, readonly number[]>>;
}

/** A program that speaks as retrying-worker.js does. */
export interface Program {
  readonly command: string;
  readonly script: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** On grpc-js; with PLUGIN_STATE_TEST_WORKER_NODE on another Node.js than the test's. */
export const nodeWorker: Program = {
  command: process.env["PLUGIN_STATE_TEST_WORKER_NODE"] ?? process.execPath,
  script: fileURLToPath(new URL("retrying-worker.js", import.meta.url)),
};

const page = new URL("../../docs/hosting.md", import.meta.url);

/** The service config that docs/hosting.md gives to clients. */
export function serviceConfigOfThePage(): unknown {
  const blocks = readFileSync(page, "utf8").matchAll(/^```json\n(.*?)^```$/gms);
  const config = [...blocks].map(([, text]) => text!).find((text) => text.includes("retryPolicy"));
  if (config === undefined) throw new Error("the page has no service config");
  return JSON.parse(config);
}

/** A worker that writes while its sidecar comes and goes. */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  readonly #ended: Promise<never>;

  constructor(program: Program, address: string, { writers = 4, pauseMs = 5 } = {}) {
    const spec = { address, serviceConfig: serviceConfigOfThePage(), writers, pauseMs };
    this.#child = spawn(program.command, [program.script, JSON.stringify(spec)], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...program.environment },
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
    this.#lines = createInterface({ input: this.#child.stdout! });
    this.#ended = once(this.#child, "exit").then(([code, signal]) => {
      throw new Error(`the worker ended: ${code ?? signal}`);
    });
    // Of interest only while something is asked.
    this.#ended.catch(() => {});
  }

  counts(): Promise<Counts> {
    return this.#ask<Counts>("counts");
  }

  /** Waits until so many more writes are acknowledged; fails at the first failed one. */
  async acknowledges(more: number): Promise<Counts> {
    const { acknowledged: before } = await this.counts();
    for (;;) {
      const counts = await this.counts();
      expect(counts.failed).toEqual([]);
      if (counts.acknowledged >= before + more) return counts;
    }
  }

  /** Lets it finish its last calls. */
  stop(): Promise<Told> {
    return this.#ask<Told>("stop");
  }

  async #ask<T>(question: string): Promise<T> {
    const answer = once(this.#lines, "line");
    this.#child.stdin!.write(`${question}\n`);
    const [line] = await Promise.race([answer, this.#ended]);
    return JSON.parse(line);
  }
}

/**
 * Fails unless the database holds exactly what the only worker was told: every acknowledged write once,
 * and nothing else.
 */
export async function expectExactly(database: TestDatabase, told: Told): Promise<void> {
  expect(told.failed).toEqual([]);
  const rows = await database.query<{ key: string; value: string }>(
    "select state_key as key, value_json::text as value from plugin_sidecar.plugin_state",
  );
  const found = Object.fromEntries(rows.map(({ key, value }) => [key, JSON.parse(value)]));
  const sets = Object.entries(told.sets).map(([key, text]) => [key, JSON.parse(text)]);
  expect(found).toEqual({ ...Object.fromEntries(sets), ...told.counters, ...told.lists });
  const [counter] = await database.query<{ revision: string }>(
    "select revision::text from plugin_sidecar.plugin_revisions",
  );
  // Each write has taken one revision, so none was done twice.
  expect(Number(counter!.revision)).toBe(told.acknowledged);
}
