import type { ListenError } from "./rpc/listen-error.ts";
import { ExitCode, StartError } from "./start-error.ts";

/** What a person can do when an address can't be bound, by why. */
export interface BindHints {
  /** Put before what happened: which of the addresses it is about. */
  readonly prefix?: string;
  /** For an address that other machines could reach. */
  readonly notLoopback: string;
  /** For all else. */
  readonly otherwise: string;
}

/** What an address that can't be bound means to a host and to a person. */
export function bindError(error: ListenError, hints: BindHints): StartError {
  const { reason, message } = error;
  const said = hints.prefix === undefined ? message : `${hints.prefix}: ${message}`;
  return new StartError(reason.toUpperCase(), said, {
    exitCode: reason === "permission" ? ExitCode.noPermission : ExitCode.cannotBind,
    retryable: reason === "address_in_use",
    hint: reason === "not_loopback" ? hints.notLoopback : hints.otherwise,
    cause: error,
  });
}
