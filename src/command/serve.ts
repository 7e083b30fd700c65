import { constants } from "node:os";
import { setFlagsFromString } from "node:v8";
import {
  type BindingConfig,
  readServeConfig,
  redactConfig,
  type ServeConfig,
} from "../config/config.ts";
import { readConfigFile } from "../config/config-file.ts";
import type { Environment } from "../config/resolve.ts";
import { createLog, type Log } from "../log.ts";
import { type Sidecar, startSidecar } from "../server.ts";
import { ExitCode, StartError } from "../start-error.ts";
import { version } from "../version.ts";
import type { Invocation } from "./commands.ts";
import { printFailed, printReady } from "./host-line.ts";
import { printError } from "./output.ts";
import { readyText } from "./ready-text.ts";
import { listenForStop } from "./stop-requests.ts";

/** How long an abort may take before the process exits without it. */
const abortTimeoutMs = 2_000;

/**
 * How much the heap may grow, in percent of what is alive, before all of it is collected. As calls leave next
 * to nothing behind in it, V8 would let it grow to several times that, and with it what Node keeps outside
 * for each stream: 267 MB after 800,000 calls on Node 24 instead of 145 after a million, in as many calls a
 * second (docs/performance.md).
 */
const heapGrowthPercent = 50;

/** How a sidecar is started: {@link startSidecar}; another in tests of the host's contract. */
type Start = typeof startSidecar;

/** `plugin-state serve`: runs a sidecar until it is asked to stop, and keeps the host's contract. */
export async function serve(
  { flags, environment }: Invocation,
  start: Start = startSidecar,
): Promise<number> {
  setFlagsFromString(`--heap-growing-percent=${heapGrowthPercent}`);
  const { config, warnings } = readServeConfig(flags, environment);
  const log = createLog(config.logLevel);
  for (const warning of warnings) log.warn(warning);
  return new Run(config, log, start, environment).untilStopped();
}

/** The bindings: from the configuration file if there is one. @throws {StartError} */
async function readFileBindings(
  { configFile, bindings, insecure }: ServeConfig,
  environment: Environment,
): Promise<readonly BindingConfig[]> {
  return configFile === undefined
    ? bindings
    : await readConfigFile(configFile, { environment, insecure });
}

/** One life of the process: start, ready, stop; a crash or a second signal cuts it short. */
class Run {
  readonly #config: ServeConfig;
  readonly #log: Log;
  readonly #start: Start;
  readonly #environment: Environment;
  readonly #stopping = new AbortController();
  #starting: Promise<Sidecar> | undefined;
  /** One reload at a time. Never rejects. */
  #reloading: Promise<void> = Promise.resolve();
  /** Whether one waits that hasn't read the file yet. */
  #willReload = false;
  #told = false;
  #crashed = false;

  constructor(config: ServeConfig, log: Log, start: Start, environment: Environment) {
    this.#environment = environment;
    this.#config = config;
    this.#log = log;
    this.#start = start;
  }

  async untilStopped(): Promise<number> {
    process.on("uncaughtException", this.#crash);
    process.on("unhandledRejection", this.#crash);
    const { exitWithParent, configFile } = this.#config;
    const unlisten = listenForStop(exitWithParent, this.#log, {
      ...(configFile !== undefined && { reload: () => this.#reloadSoon() }),
      stop: () => this.#stopping.abort(),
      abort: (signal) => void this.#exitNow(128 + constants.signals[signal]),
    });
    try {
      return await this.#startAndStop();
    } finally {
      unlisten();
    }
  }

  async #startAndStop(): Promise<number> {
    const { signal } = this.#stopping;
    this.#starting = this.#begin(signal);
    let sidecar: Sidecar;
    try {
      sidecar = await this.#starting;
    } catch (error) {
      if (!signal.aborted) return this.#failed(error);
      this.#log.info("start cancelled");
      return ExitCode.ok;
    }
    if (!signal.aborted) await this.#ready(sidecar);
    await aborted(signal);
    return this.#stop(sidecar);
  }

  async #begin(signal: AbortSignal): Promise<Sidecar> {
    const bindings = await readFileBindings(this.#config, this.#environment);
    const config = { ...this.#config, bindings };
    this.#log.debug({ version, config: redactConfig(config) }, "starting");
    return await this.#start(config, this.#log, signal);
  }

  async #ready(sidecar: Sidecar): Promise<void> {
    const { bindings, metrics, healthAddress } = sidecar;
    await this.#tell(() => printReady(sidecar));
    this.#log.info({ bindings, metrics, healthAddress }, "ready");
    if (isForPeople()) await printError(readyText(this.#config, sidecar.bindings));
  }

  async #stop(sidecar: Sidecar): Promise<number> {
    try {
      await sidecar.stop();
      this.#log.info("stopped");
      return ExitCode.ok;
    } catch (error) {
      this.#log.fatal({ err: error }, "stopped, but not cleanly; this is a bug");
      return ExitCode.bug;
    }
  }

  /** After the start, and after the reload that is under way. Signals that come before it begins are one. */
  #reloadSoon(): void {
    if (this.#willReload) return;
    this.#willReload = true;
    this.#reloading = this.#reloading.then(() => this.#reload());
  }

  /** Reads the configuration file again. What is wrong with it is logged, and changes nothing. */
  async #reload(): Promise<void> {
    // A start that failed says so itself.
    const sidecar = await this.#starting?.catch(() => undefined);
    this.#willReload = false;
    if (sidecar === undefined || this.#stopping.signal.aborted) return;
    try {
      await sidecar.reload(await readFileBindings(this.#config, this.#environment));
    } catch (error) {
      this.#log.error({ err: error }, "can't reload; everything stays as it is");
    }
  }

  async #failed(error: unknown): Promise<number> {
    const failure = error instanceof StartError ? error : bugOf(error);
    const { reason, hint } = failure;
    this.#log.fatal({ reason, hint, err: failure.cause }, failure.message);
    if (process.stderr.isTTY) await printError(`plugin-state: ${failure.message}\n${hint ?? ""}\n`);
    await this.#tell(() => printFailed(failure));
    return failure.exitCode;
  }

  /** The host gets one line, however many things go wrong at once. */
  async #tell(print: () => Promise<void>): Promise<void> {
    if (this.#told) return;
    this.#told = true;
    await print();
  }

  /** Nobody caught an error: nothing can be trusted any more, so say it and leave. */
  readonly #crash = (error: unknown): void => {
    if (this.#crashed) return;
    this.#crashed = true;
    this.#log.fatal({ err: error }, "uncaught error; this is a bug");
    if (!this.#told) this.#stopping.abort();
    void this.#exitNow(
      ExitCode.bug,
      this.#tell(() => printFailed(bugOf(error))),
    );
  };

  /** Ends the process without draining; the sidecar gets a moment to kill what it started. */
  async #exitNow(code: number, told?: Promise<void>): Promise<void> {
    setTimeout(() => process.exit(code), abortTimeoutMs);
    await told;
    try {
      await (await this.#starting)?.abort();
    } catch (error) {
      this.#log.debug({ err: error }, "while stopping at once");
    }
    process.exit(code);
  }
}

function bugOf(error: unknown): StartError {
  return new StartError("BUG", "the sidecar failed for a reason it doesn't know; see its log", {
    exitCode: ExitCode.bug,
    cause: error,
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Whether it was started by a person: at a terminal, or by this package's own `npm start`. */
function isForPeople(): boolean {
  const { npm_lifecycle_event: script, npm_package_name: name } = process.env;
  return process.stderr.isTTY === true || (script === "start" && name === "plugin-state-sidecar");
}
