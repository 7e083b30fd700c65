import { setTimeout as sleep } from "node:timers/promises";
import type { Addresses } from "./addresses.ts";
import { endedSilently, SidecarChild } from "./child.ts";
import { commandLine, environment, secretsOf } from "./command-line.ts";
import type { SidecarEvent, SupervisionEnd } from "./events.ts";
import { Health } from "./health.ts";
import type { ReplaceableOptions, SidecarOptions } from "./options.ts";
import type { ReadyLine, SidecarBinding } from "./ready-line.ts";
import { requireSense } from "./require-sense.ts";
import { defaultRestartRule, RestartPolicy } from "./restart-policy.ts";
import { type ProcessExit, SidecarError } from "./sidecar-error.ts";
import type { SupervisedSidecar } from "./supervisor.ts";

const defaults = {
  startTimeoutMs: 60_000,
  stopTimeoutMs: 20_000,
  holdMs: 5_000,
  healthPollMs: 500,
};

/** A process that says it's ready. */
interface Serving {
  readonly child: SidecarChild;
  readonly line: ReadyLine;
}

/** A life that ended, or didn't begin; `readyMs` milliseconds of it were good. */
interface Lost {
  readonly error: SidecarError;
  readonly readyMs: number;
}

/** One sidecar: a loop that starts it, waits for its end, and decides whether to start it again. */
export class Supervision implements SupervisedSidecar {
  #options: SidecarOptions;
  readonly #addresses: Addresses;
  readonly #policy: RestartPolicy;
  readonly #health = new Health();
  readonly #stopping = new AbortController();
  readonly #children = new Set<SidecarChild>();
  #serving: SidecarChild | undefined;
  #bindings: readonly SidecarBinding[] = [];
  #version = "";
  #restarts = 0;
  #lastExit: ProcessExit | undefined;
  #replacing: Promise<void> | undefined;
  /** The part of a replacement after which another process serves, or the old one stays. */
  #swapping: Promise<unknown> | undefined;
  #stop: Promise<void> | undefined;
  #onFirstReady: () => void = () => {};
  #onExit: Promise<SupervisionEnd> | undefined;

  constructor(options: SidecarOptions, addresses: Addresses) {
    this.#options = { ...defaults, ...options };
    this.#addresses = addresses;
    this.#policy = new RestartPolicy({ ...defaultRestartRule, ...options.restart });
    this.#health.onChange((status) => this.#emit({ type: "health", status }));
  }

  get bindings(): readonly SidecarBinding[] {
    return this.#bindings;
  }

  get version(): string {
    return this.#version;
  }

  get pid(): number | undefined {
    return this.#serving?.pid;
  }

  get health(): Health {
    return this.#health;
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** Asked for the first time, by `begin`, it starts. */
  get onExit(): Promise<SupervisionEnd> {
    this.#onExit ??= this.#run();
    return this.#onExit;
  }

  /** Resolves at the first ready line; see `startSidecar` for what it throws. */
  async begin(): Promise<void> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const stop = () => void this.stop();
    signal?.addEventListener("abort", stop, { once: true });
    const ready = new Promise<undefined>((resolve) => {
      this.#onFirstReady = () => resolve(undefined);
    });
    const ended = this.onExit.finally(() => signal?.removeEventListener("abort", stop));
    const end = await Promise.race([ready, ended]);
    if (end === undefined) return;
    signal?.throwIfAborted();
    throw end.reason === "stopped" ? stopped() : end.error;
  }

  stop(): Promise<void> {
    this.#stop ??= this.#stopAll();
    return this.#stop;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  replace(changed: ReplaceableOptions = {}): Promise<void> {
    this.#replacing ??= this.#replace({ ...this.#options, ...changed }).finally(() => {
      this.#replacing = undefined;
    });
    return this.#replacing;
  }

  async #stopAll(): Promise<void> {
    this.#stopping.abort();
    await Promise.all([...this.#children].map((child) => this.#end(child)));
    await this.onExit;
  }

  async #run(): Promise<SupervisionEnd> {
    const end = await this.#keepRunning();
    // What a replacement had started when the end came.
    await Promise.all([...this.#children].map((child) => this.#end(child)));
    this.#health.forget();
    this.#addresses.close();
    this.#emit({ type: "ended", end });
    return end;
  }

  async #keepRunning(): Promise<SupervisionEnd> {
    const { signal } = this.#stopping;
    for (;;) {
      const lost = await this.#live();
      if (signal.aborted || lost === undefined) return { reason: "stopped", exit: this.#lastExit };
      const { error, readyMs } = lost;
      if (!error.retryable) return { reason: "not_retryable", error };
      const delayMs = this.#policy.nextDelayMs(readyMs);
      if (delayMs === undefined) {
        return { reason: "too_many_restarts", error, restarts: this.#policy.inARow };
      }
      await this.#waitFor(delayMs);
    }
  }

  async #waitFor(delayMs: number): Promise<void> {
    const { holdMs = defaults.holdMs } = this.#options;
    this.#emit({ type: "restarting", delayMs, restart: this.#policy.inARow });
    if (delayMs > holdMs) this.#addresses.close();
    // Only a stop ends it early, and the loop looks.
    await sleep(delayMs, undefined, { signal: this.#stopping.signal }).catch(() => {});
    if (!this.#stopping.signal.aborted) this.#restarts++;
  }

  /** One life: a start, and if that succeeds its end. Undefined: it was stopped before it began. */
  async #live(): Promise<Lost | undefined> {
    if (this.#stopping.signal.aborted) return undefined;
    let serving: Serving;
    try {
      serving = await this.#launch(this.#options);
    } catch (error) {
      return { error: this.#startFailed(error), readyMs: 0 };
    }
    this.#adopt(serving);
    return this.#untilLost();
  }

  /** Waits for the end of whichever process serves: replacements come and go meanwhile. */
  async #untilLost(): Promise<Lost> {
    for (;;) {
      const child = this.#serving;
      if (child === undefined) throw new Error("nobody serves");
      const exit = await child.exited;
      const readyMs = child.readyMs;
      // Of one that was to be replaced, or is being replaced just now, the end is no loss.
      await this.#swapping?.catch(() => {});
      if (this.#serving !== child) continue;
      this.#serving = undefined;
      this.#health.forget();
      return { error: endedSilently(exit), readyMs };
    }
  }

  #adopt({ child, line }: Serving): void {
    const bindings = this.#addresses.named(line.bindings);
    const [from, to] = [this.#bindings, bindings].map((all) => all.map(({ address }) => address));
    this.#serving = child;
    this.#bindings = bindings;
    this.#version = line.version;
    this.#addresses.keep(line.bindings);
    this.#emit({
      type: "ready",
      pid: line.pid,
      version: line.version,
      bindings,
      afterMs: child.startMs,
    });
    if (from?.length && to && from.join() !== to.join()) {
      this.#emit({ type: "addresses_changed", from, to });
    }
    this.#watchHealth();
    this.#onFirstReady();
  }

  #watchHealth(): void {
    if (this.#stopping.signal.aborted) return;
    const { healthCredentials, healthPollMs = defaults.healthPollMs } = this.#options;
    const options = { credentials: healthCredentials, pollMs: healthPollMs };
    this.#health.watch(this.#bindings, options);
  }

  async #replace(options: SidecarOptions): Promise<void> {
    requireSense(options);
    const old = this.#serving;
    if (old === undefined || this.#stopping.signal.aborted) throw notRunning();
    this.#swapping = this.#swap(old, options).finally(() => {
      this.#swapping = undefined;
    });
    await this.#swapping;
    // Until it has drained, a new connection may still meet the old process.
    await this.#end(old);
    if (this.#serving !== undefined) this.#watchHealth();
  }

  async #swap(old: SidecarChild, options: SidecarOptions): Promise<void> {
    // Two processes can't bind one address: the old one's calls end first.
    if (!this.#addresses.isHeld) await this.#end(old);
    const next = await this.#launch(options, "while another serves").catch((error: unknown) => {
      throw this.#startFailed(error);
    });
    this.#options = options;
    this.#adopt(next);
    this.#health.pause();
  }

  /** Starts a process and waits until it's ready. Throws what `SidecarChild` throws; leaves nothing. */
  async #launch(options: SidecarOptions, when?: "while another serves"): Promise<Serving> {
    const { flags, handles } = await this.#addresses.open();
    if (this.#stopping.signal.aborted) throw stopped();
    const takeover = when === undefined ? {} : { PLUGIN_STATE_ACCEPT_WHEN_READY: "true" };
    const env = { ...environment(options), ...takeover };
    const child = this.#spawn(options, env, flags, handles);
    if (child.pid !== undefined) this.#emit({ type: "started", pid: child.pid });
    const line = await child.ready;
    // A process that is being stopped may say that it's ready all the same.
    if (this.#stopping.signal.aborted) throw stopped();
    return { child, line };
  }

  #spawn(
    options: SidecarOptions,
    env: Record<string, string>,
    flags: readonly string[],
    sockets: Awaited<ReturnType<Addresses["open"]>>["handles"],
  ): SidecarChild {
    const child = new SidecarChild({
      command: commandLine(options, flags),
      env,
      cwd: options.cwd,
      sockets,
      holdsStdin: options.exitWithParent ?? true,
      startTimeoutMs: options.startTimeoutMs ?? defaults.startTimeoutMs,
      secrets: secretsOf(env),
      onLog: (line) => this.#tell(this.#options.onLog, line),
    });
    this.#children.add(child);
    void child.exited.then((exit) => this.#exited(child, exit));
    return child;
  }

  #exited(child: SidecarChild, exit: ProcessExit): void {
    this.#children.delete(child);
    this.#lastExit = exit;
    if (child.pid === undefined || child.readyMs === 0) return;
    this.#emit({ type: "exited", pid: child.pid, exit, asked: child.isStopping });
  }

  #startFailed(thrown: unknown): SidecarError {
    const error =
      thrown instanceof SidecarError
        ? thrown
        : new SidecarError("CANNOT_SPAWN", String(thrown), { retryable: false, cause: thrown });
    if (error.reason === "ADDRESS_IN_USE" && this.#serving === undefined) this.#addresses.forget();
    if (!this.#stopping.signal.aborted) this.#emit({ type: "start_failed", error });
    return error;
  }

  #end(child: SidecarChild): Promise<ProcessExit> {
    return child.stop(this.#options.stopTimeoutMs ?? defaults.stopTimeoutMs);
  }

  #emit(event: SidecarEvent): void {
    this.#tell(this.#options.onEvent, event);
  }

  /** A host's callback that throws is the host's fault, and mustn't end the supervision. */
  #tell<T>(callback: ((value: T) => void) | undefined, value: T): void {
    try {
      callback?.(value);
    } catch (error) {
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }
}

function stopped(): SidecarError {
  return new SidecarError("STOPPED", "the sidecar was stopped", { retryable: false });
}

function notRunning(): SidecarError {
  return new SidecarError("NOT_RUNNING", "there is no running sidecar to replace", {
    retryable: true,
  });
}
