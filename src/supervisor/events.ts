import type { HealthStatus } from "./health.ts";
import type { SidecarBinding } from "./ready-line.ts";
import type { ProcessExit, SidecarError } from "./sidecar-error.ts";

/** What happens to a supervised sidecar, as it happens. */
export type SidecarEvent =
  /** A process was started. It isn't ready yet. */
  | { readonly type: "started"; readonly pid: number }
  /** It serves, `afterMs` milliseconds after it was started. */
  | {
      readonly type: "ready";
      readonly pid: number;
      readonly version: string;
      readonly bindings: readonly SidecarBinding[];
      readonly afterMs: number;
    }
  /** A start failed: the process is gone, or there never was one. */
  | { readonly type: "start_failed"; readonly error: SidecarError }
  /** A process that was ready has ended; `asked`: because the supervisor told it to. */
  | {
      readonly type: "exited";
      readonly pid: number;
      readonly exit: ProcessExit;
      readonly asked: boolean;
    }
  /** It is started again after `delayMs` milliseconds; the `restart`th time in a row, from 1. */
  | { readonly type: "restarting"; readonly delayMs: number; readonly restart: number }
  /** The addresses aren't those of before: another program has taken a port meanwhile. */
  | {
      readonly type: "addresses_changed";
      readonly from: readonly string[];
      readonly to: readonly string[];
    }
  /** The health of all bindings together has changed. */
  | { readonly type: "health"; readonly status: HealthStatus }
  /** The supervision has ended; the same is in `onExit`. */
  | { readonly type: "ended"; readonly end: SupervisionEnd };

/** Why a sidecar is no longer supervised. */
export type SupervisionEnd =
  /** `stop()` or the signal asked for it. `exit` is the last process's; SIGKILL if it didn't drain in time. */
  | { readonly reason: "stopped"; readonly exit: ProcessExit | undefined }
  /** The same start would only fail again: an exit code of 64, 77 or 78, or a failed line that says so. */
  | { readonly reason: "not_retryable"; readonly error: SidecarError }
  /** It ended too often in a row, `restarts` times after a restart; `error` is the last one. */
  | {
      readonly reason: "too_many_restarts";
      readonly error: SidecarError;
      readonly restarts: number;
    };
