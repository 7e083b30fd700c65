import type { EmbeddedLog } from "./embedded-log.ts";
import { pause } from "./pause.ts";
import type { Server } from "./server.ts";

const firstDelayMs = 100;
const maxDelayMs = 10_000;
// A server that ran this long wasn't brought down by its start.
const steadyMs = 30_000;

/** Starts the server again whenever it dies: our own child and an adopted one alike. */
export class Supervisor {
  readonly #server: Server;
  readonly #log: EmbeddedLog;
  readonly #ending = new AbortController();
  readonly #watching: Promise<void>;

  constructor(server: Server, log: EmbeddedLog) {
    this.#server = server;
    this.#log = log;
    this.#watching = this.#watch(this.#ending.signal);
  }

  /** Ends the watch; a start in progress is given up, what it started runs on. */
  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#watching;
  }

  async #watch(signal: AbortSignal): Promise<void> {
    let delayMs = 0;
    while (!signal.aborted) {
      const since = performance.now();
      await this.#revive(delayMs, signal).catch((error: unknown) => {
        if (!signal.aborted) this.#log.error({ err: error }, "PostgreSQL didn't start again");
      });
      delayMs = performance.now() - since > steadyMs ? 0 : nextDelay(delayMs);
    }
  }

  async #revive(delayMs: number, signal: AbortSignal): Promise<void> {
    await pause(delayMs, signal, { ref: false });
    await this.#server.gone(signal);
    this.#log.warn({}, "PostgreSQL is gone; starting it again");
    await this.#server.ensure(signal);
    this.#log.info({}, "PostgreSQL accepts connections again");
  }
}

/** Doubles, with a random part: several sidecars watch one server. */
function nextDelay(delayMs: number): number {
  return Math.min(maxDelayMs, Math.max(firstDelayMs, delayMs * 2)) * (0.75 + Math.random() / 4);
}
