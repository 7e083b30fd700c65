/**
 * Why a sidecar didn't start. `reason` of {@link SidecarError} is one of these when the supervisor
 * found it out itself; when the sidecar said it in its failed line, it is the sidecar's own word, such
 * as `ADDRESS_IN_USE` or `DATABASE_PERMISSION`.
 *
 * - `CANNOT_SPAWN`: the command couldn't be run at all.
 * - `EXITED`: the process ended without a line that says why.
 * - `START_TIMEOUT`: neither ready nor failed within the time.
 * - `BAD_READY_LINE`: its first line on stdout isn't one of the contract, or is too long.
 * - `STDOUT_CLOSED`: it closed stdout before it said anything.
 * - `UNSUPPORTED_PROTOCOL`: it speaks another version of the contract.
 * - `CANNOT_LISTEN`: an address couldn't be opened; the message says why.
 * - `NOT_RUNNING`: there is no running sidecar to replace.
 * - `STOPPED`: the supervision was stopped, or ended, meanwhile.
 */
export type SupervisorReason =
  | "CANNOT_SPAWN"
  | "EXITED"
  | "START_TIMEOUT"
  | "BAD_READY_LINE"
  | "STDOUT_CLOSED"
  | "UNSUPPORTED_PROTOCOL"
  | "CANNOT_LISTEN"
  | "NOT_RUNNING"
  | "STOPPED";

/** How a process ended: with a code, or by a signal. */
export interface ProcessExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What a {@link SidecarError} holds beside its message. */
export interface SidecarErrorOptions {
  readonly retryable: boolean;
  readonly exit?: ProcessExit | undefined;
  readonly cause?: unknown;
}

/** A sidecar that didn't start, or can't be replaced. Its message holds no secret. */
export class SidecarError extends Error {
  override readonly name = "SidecarError";
  /** Stable and made for programs; see {@link SupervisorReason}. */
  readonly reason: SupervisorReason | (string & {});
  /** Whether the same start may succeed later without anybody changing anything. */
  readonly retryable: boolean;
  /** How the process ended; undefined when there was none, or when it was killed for this error. */
  readonly exit: ProcessExit | undefined;

  constructor(reason: SidecarError["reason"], message: string, options: SidecarErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.retryable = options.retryable;
    this.exit = options.exit;
  }
}

/** `exit code 69` or `signal SIGKILL`. */
export function describeExit({ code, signal }: ProcessExit): string {
  return signal === null ? `exit code ${code}` : `signal ${signal}`;
}
