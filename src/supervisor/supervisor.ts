import { Addresses } from "./addresses.ts";
import type { SupervisionEnd } from "./events.ts";
import type { SidecarHealth } from "./health.ts";
import type { ReplaceableOptions, SidecarOptions } from "./options.ts";
import type { SidecarBinding } from "./ready-line.ts";
import { requireSense } from "./require-sense.ts";
import { Supervision } from "./supervision.ts";

export type { SidecarEvent, SupervisionEnd } from "./events.ts";
export type { BindingHealth, HealthStatus, SidecarHealth } from "./health.ts";
export type { BindingRequest, ReplaceableOptions, SidecarOptions } from "./options.ts";
export type { SidecarBinding } from "./ready-line.ts";
export type { RestartRule } from "./restart-policy.ts";
export {
  type ProcessExit,
  SidecarError,
  type SidecarErrorOptions,
  type SupervisorReason,
} from "./sidecar-error.ts";

/** A sidecar that is started, watched, restarted and stopped by this process. */
export interface SupervisedSidecar extends AsyncDisposable {
  /** Whose state is served where, as of the last process that was ready. */
  readonly bindings: readonly SidecarBinding[];
  /** The version of the last process that was ready: `0.1.0`. */
  readonly version: string;
  /** The running process; undefined while there is none. */
  readonly pid: number | undefined;
  /** The health of the bindings; see {@link SidecarHealth}. */
  readonly health: SidecarHealth;
  /** How often it was started again because it had ended, or a start had failed. */
  readonly restarts: number;
  /** Resolves, and never rejects, when it isn't supervised any more: stopped, or given up. */
  readonly onExit: Promise<SupervisionEnd>;
  /**
   * Starts another process on the same open addresses, waits until it's ready, then drains the old one: no
   * connection is refused. Where addresses aren't held (see `holdSockets`), the old one is drained
   * first. The changed options, if any, count for later restarts too.
   *
   * Calls that overlap share one replacement, and the first one's options.
   *
   * @throws {TypeError} of options that make no sense.
   * @throws {SidecarError} when the new process doesn't become ready: the old one stays (where addresses
   *   aren't held it is gone, and restarted). `NOT_RUNNING` while there is nothing to replace.
   */
  replace(changed?: ReplaceableOptions): Promise<void>;
  /**
   * Lets it drain, kills it when that takes longer than `stopTimeoutMs`, and frees everything. Resolves
   * when the process is gone. Idempotent; all calls share one promise.
   */
  stop(): Promise<void>;
}

/**
 * Starts `plugin-state serve` and supervises it. Resolves when it's ready for the first time; a start
 * that fails and may succeed later is tried again, as later ones are.
 *
 * @throws {SidecarError} when it doesn't become ready: with the sidecar's own reason, message and
 *   `retryable`, or a {@link SupervisorReason}. Nothing is left running.
 * @throws {TypeError} of options that make no sense.
 * @throws the signal's reason, when that aborts before the sidecar is ready.
 */
export async function startSidecar(options: SidecarOptions): Promise<SupervisedSidecar> {
  requireSense(options);
  const { bindings, sockets = [], holdSockets = true } = options;
  const texts = bindings?.map(({ listen = "127.0.0.1:0" }) => listen) ?? sockets;
  const supervision = new Supervision(options, new Addresses(texts, holdSockets));
  await supervision.begin();
  return supervision;
}
