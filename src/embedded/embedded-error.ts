/** Why the embedded server can't run: stable words, for programs. */
export type EmbeddedReason =
  /** No binaries exist for this operating system or processor. */
  | "unsupported_platform"
  /** The npm package with the binaries isn't installed. */
  | "binaries_missing"
  /** The binaries are there but don't run. */
  | "binaries_unusable"
  /** Started as root, and no unprivileged account exists to run the server. */
  | "no_account"
  /** The account that runs the server can't get to the data directory. */
  | "data_dir_unreachable"
  /** The file system refused something in the data directory. */
  | "data_dir_unusable"
  /** The data directory was made by another major version. */
  | "data_dir_version"
  /** A directory that the server needs to itself belongs to somebody else. */
  | "directory_taken"
  /** The data directory is in use from another container. */
  | "in_use_elsewhere"
  /** initdb failed. */
  | "initdb_failed"
  /** The server ended before it accepted connections. */
  | "start_failed"
  /** A server process lives but answers nobody. */
  | "not_answering";

/**
 * Why the embedded server can't run, as one sentence for an operator; `hint` says what to do about
 * it.
 */
export class EmbeddedError extends Error {
  override readonly name = "EmbeddedError";
  readonly reason: EmbeddedReason;
  readonly hint?: string;

  constructor(
    reason: EmbeddedReason,
    message: string,
    more: { readonly hint?: string; readonly cause?: unknown } = {},
  ) {
    super(message, "cause" in more ? { cause: more.cause } : undefined);
    this.reason = reason;
    if (more.hint !== undefined) this.hint = more.hint;
  }
}

const refusals = new Set(["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "ELOOP"]);

/** The code of a system error (`ENOENT`, …), or undefined for any other error. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** For `catch`: lets one system error pass. */
export function unlessCode(code: string): (error: unknown) => undefined {
  return (error) => {
    if (errorCode(error) !== code) throw error;
    return undefined;
  };
}

/** Makes a refusal of the file system an EmbeddedError; every other error comes back as it is. */
export function explainRefusal(error: unknown, dataDir: string): unknown {
  const code = errorCode(error);
  if (error instanceof EmbeddedError || code === undefined || !refusals.has(code)) return error;
  const message = error instanceof Error ? error.message : code;
  return new EmbeddedError(
    "data_dir_unusable",
    `can't use the data directory ${dataDir}: ${message}`,
    {
      hint: "choose a directory that the sidecar may write, or set DATABASE_URL",
      cause: error,
    },
  );
}

/** The data directory is in use by processes that this one can't see. */
export function inUseElsewhere(socketDir: string): EmbeddedError {
  return new EmbeddedError("in_use_elsewhere", `${socketDir} is in use from another container`, {
    hint: "give each container a data directory of its own, let them share process ids, or set DATABASE_URL",
  });
}
