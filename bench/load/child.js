// @ts-check
// Node processes that tell what they have to tell in one line of JSON on stdout.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A running process. Its stdin ends when this process does. */
export class Child {
  #process;
  #exit;

  /**
   * @param {string | URL} file
   * @param {string[]} [args]
   * @param {Record<string, string>} [env] added to ours
   */
  constructor(file, args = [], env = {}) {
    const path = file instanceof URL ? fileURLToPath(file) : file;
    this.#process = spawn(process.execPath, [path, ...args], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    this.#exit = once(this.#process, "exit");
    this.#exit.catch(() => {}); // a failed spawn shows in firstLine
  }

  get pid() {
    return this.#process.pid ?? 0;
  }

  /**
   * The first line on stdout, parsed. Rejects, and kills the process, if it doesn't come.
   * @param {number} timeoutMs
   * @returns {Promise<unknown>}
   */
  async firstLine(timeoutMs) {
    const lines = createInterface({ input: this.#process.stdout });
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), timeoutMs);
    const ended = this.#exit.then(([code, signal]) => {
      throw new Error(`${this.#process.spawnargs[1]} ended (${code ?? signal}) without a line`);
    });
    try {
      const line = once(lines, "line").then(([text]) => text);
      return JSON.parse(await Promise.race([line, ended]));
    } finally {
      clearTimeout(timer);
      ended.catch(() => {});
    }
  }

  /**
   * Ends the process and waits for it. May be called twice.
   * @param {NodeJS.Signals} [signal]
   */
  async stop(signal = "SIGTERM") {
    this.#process.kill(signal);
    await this.#exit;
  }
}
