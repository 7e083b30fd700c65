import { type ChannelCredentials, credentials } from "@grpc/grpc-js";
import { type HealthStatus, HealthWatch } from "./health-watch.ts";
import type { SidecarBinding } from "./ready-line.ts";

export type { HealthStatus } from "./health-watch.ts";

/** The health of one address of a sidecar. */
export interface BindingHealth {
  readonly plugin: string;
  readonly address: string;
  readonly status: HealthStatus;
}

/**
 * The health of a supervised sidecar, as grpc.health.v1 tells it. `SERVING`: every binding is.
 * `NOT_SERVING`: one isn't, as while the database is away, or its plugin isn't registered; `bindings` tells
 * which. `UNKNOWN`: there is no process, or one doesn't answer.
 */
export interface SidecarHealth {
  readonly status: HealthStatus;
  /** Each binding by itself, in the order of `bindings`. */
  readonly bindings: readonly BindingHealth[];
  /** Calls `listener` at each change of `status`, until the returned function is called. */
  onChange(listener: (status: HealthStatus) => void): () => void;
  /** Resolves when `status` is this one, at once if it is. Rejects with the signal's reason. */
  until(status: HealthStatus, options?: { readonly signal?: AbortSignal }): Promise<void>;
}

/** How the bindings are asked. */
export interface HealthOptions {
  readonly credentials: ChannelCredentials | undefined;
  readonly pollMs: number;
}

/** Watches the bindings of the process that serves, and joins what they say. */
export class Health implements SidecarHealth {
  readonly #listeners = new Set<(status: HealthStatus) => void>();
  #bindings: BindingHealth[] = [];
  #watches: HealthWatch[] = [];
  #told: HealthStatus = "UNKNOWN";

  get status(): HealthStatus {
    return this.#told;
  }

  get bindings(): readonly BindingHealth[] {
    return this.#bindings;
  }

  onChange(listener: (status: HealthStatus) => void): () => void {
    // Wrapped, so that one function may listen twice.
    const own = (status: HealthStatus) => listener(status);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  until(wanted: HealthStatus, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.#told === wanted) return resolve();
      const aborted = () => {
        unlisten();
        reject(signal?.reason);
      };
      const unlisten = this.onChange((status) => {
        if (status !== wanted) return;
        unlisten();
        signal?.removeEventListener("abort", aborted);
        resolve();
      });
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** Watches these from now on. What was known of an address counts until it answers anew. */
  watch(bindings: readonly SidecarBinding[], options: HealthOptions): void {
    this.pause();
    const known = new Map(this.#bindings.map(({ address, status }) => [address, status]));
    this.#bindings = bindings.map(({ plugin, address }) => {
      return { plugin, address, status: known.get(address) ?? "UNKNOWN" };
    });
    this.#watches = bindings.map(({ address }, index) => {
      return new HealthWatch({
        address,
        credentials: options.credentials ?? credentials.createInsecure(),
        pollMs: options.pollMs,
        onStatus: (status) => this.#set(index, status),
      });
    });
    this.#tell();
  }

  /** Stops watching, and keeps what was known: one process takes over from another. */
  pause(): void {
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
  }

  /** There is no process any more. */
  forget(): void {
    this.pause();
    this.#bindings = this.#bindings.map((binding) => ({ ...binding, status: "UNKNOWN" }));
    this.#tell();
  }

  #set(index: number, status: HealthStatus): void {
    this.#bindings = this.#bindings.map((binding, at) =>
      at === index ? { ...binding, status } : binding,
    );
    this.#tell();
  }

  #tell(): void {
    const status = joined(this.#bindings);
    if (status === this.#told) return;
    this.#told = status;
    for (const listener of [...this.#listeners]) listener(status);
  }
}

function joined(bindings: readonly BindingHealth[]): HealthStatus {
  const all = new Set(bindings.map(({ status }) => status));
  if (all.has("NOT_SERVING")) return "NOT_SERVING";
  return all.has("UNKNOWN") || all.size === 0 ? "UNKNOWN" : "SERVING";
}
