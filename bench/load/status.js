// @ts-check
// What a call ended with, as one word that results can be counted by.

/** The result of a call that got its message and status 0. */
export const OK = "OK";

/** gRPC's status names by their numbers. */
const NAMES = [
  OK,
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

/**
 * Names a gRPC status.
 * @param {number} status
 */
export function statusName(status) {
  return NAMES[status] ?? `GRPC_STATUS_${status}`;
}
