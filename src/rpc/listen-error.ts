import { formatAddress, type ListenAddress } from "./listen-address.ts";

/** Why an address couldn't be bound. */
export type ListenFailure =
  | "address_in_use"
  | "permission"
  | "address_unavailable"
  | "path_too_long"
  | "not_a_socket"
  | "bad_descriptor"
  | "not_loopback"
  | "shutting_down"
  | "failed";

/** An address that couldn't be bound; the message is a sentence for whoever chose it. */
export class ListenError extends Error {
  override readonly name = "ListenError";
  readonly reason: ListenFailure;

  constructor(address: ListenAddress, reason: ListenFailure, why: string, cause?: unknown) {
    super(`Cannot listen on ${formatAddress(address)}: ${why}.`, { cause });
    this.reason = reason;
  }
}

const meanings: Record<string, [ListenFailure, string]> = {
  EADDRINUSE: ["address_in_use", "another process is listening there"],
  EACCES: ["permission", "this user isn't allowed to"],
  EPERM: ["permission", "this user isn't allowed to"],
  EROFS: ["permission", "the file system is read-only"],
  EADDRNOTAVAIL: ["address_unavailable", "this machine has no such address"],
  EAFNOSUPPORT: ["address_unavailable", "this machine has no such kind of address"],
  ENOTFOUND: ["address_unavailable", "the name has no address"],
  EAI_AGAIN: ["address_unavailable", "the name couldn't be looked up"],
  EBADF: ["bad_descriptor", "the descriptor isn't open"],
  ENOTSOCK: ["bad_descriptor", "the descriptor is no socket"],
};

/** Turns what the system threw into a {@link ListenError} that keeps it as its cause. */
export function listenError(address: ListenAddress, cause: unknown): ListenError {
  if (cause instanceof ListenError) return cause;
  const [reason, why] = meanings[errorCode(cause)] ?? other(address, cause);
  return new ListenError(address, reason, why, cause);
}

/** The system's name for an error, such as `ENOENT`, or "" if it has none. */
export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function other(address: ListenAddress, cause: unknown): [ListenFailure, string] {
  if (address.kind === "fd") {
    return ["bad_descriptor", "the descriptor is no socket to listen on"];
  }
  return ["failed", cause instanceof Error ? cause.message : String(cause)];
}
