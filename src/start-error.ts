/**
 * What the process exits with, after BSD's sysexits.h: a host decides by this number whether to
 * start again. Printed by `--help` and in docs/configuration.md from {@link exitCodes}.
 */
export const ExitCode = {
  ok: 0,
  /** A health check that wasn't SERVING. */
  unhealthy: 1,
  usage: 64,
  databaseUnavailable: 69,
  bug: 70,
  cannotBind: 73,
  noPermission: 77,
  configuration: 78,
  /** 128 + SIGINT, 128 + SIGTERM: a second signal ended the process before it had drained. */
  interrupted: 130,
  terminated: 143,
} as const;

/** One row of the table a reader of `--help` sees. */
export interface ExitCodeMeaning {
  readonly code: number;
  readonly meaning: string;
}

/** What each exit code of `serve` means and what a host should do about it. */
export const exitCodes: readonly ExitCodeMeaning[] = [
  { code: ExitCode.ok, meaning: "stopped as asked, everything drained" },
  { code: ExitCode.usage, meaning: "wrong flag, command or value; starting again won't help" },
  {
    code: ExitCode.databaseUnavailable,
    meaning:
      "the database can't be reached (serve: only with --fail-fast), or the embedded one can't be started; try again later",
  },
  { code: ExitCode.bug, meaning: "a bug: please report the log" },
  { code: ExitCode.cannotBind, meaning: "a listen address is in use or can't be bound" },
  {
    code: ExitCode.noPermission,
    meaning: "the system or the database refused: a file, a port, a role",
  },
  {
    code: ExitCode.configuration,
    meaning: "the configuration or the schema doesn't fit this release",
  },
  {
    code: ExitCode.interrupted,
    meaning: "a second SIGINT (143: SIGTERM) ended it before it had drained",
  },
];

/** What a {@link StartError} says to a program and to a person, beside its message. */
export interface StartErrorOptions {
  readonly exitCode: number;
  /** True when the same start may succeed later without anybody changing anything. */
  readonly retryable?: boolean;
  /** What a person can do about it, as a sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * The reason why a command couldn't do its work, told to the host in the failed line and by the exit code.
 *
 * Its message and hint are shown to people and written to logs: no secret may be in them. A cause
 * is only logged.
 */
export class StartError extends Error {
  override readonly name = "StartError";
  /** Stable and made for programs: upper case words, like `ADDRESS_IN_USE`. */
  readonly reason: string;
  readonly exitCode: number;
  readonly retryable: boolean;
  readonly hint?: string;

  constructor(reason: string, message: string, options: StartErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.exitCode = options.exitCode;
    this.retryable = options.retryable ?? false;
    if (options.hint !== undefined) this.hint = options.hint;
  }
}

/** Makes the error of a wrong flag, command or value: exit code 64, never worth a retry. */
export function usageError(message: string, hint?: string): StartError {
  return new StartError("USAGE", message, {
    exitCode: ExitCode.usage,
    ...(hint === undefined ? {} : { hint }),
  });
}
