import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { status as Code, Metadata } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../gen/google/rpc/status_pb.ts";
import {
  ErrorReason,
  ErrorReasonSchema,
  type FailedCheckSchema,
  FailedChecksSchema,
} from "../gen/pluginstate/v1/errors_pb.ts";
import { MalformedRequest } from "../rpc/decode.ts";
import type { OutgoingStatus } from "../rpc/outgoing-status.ts";
import {
  CapabilityDenied,
  ChecksFailed,
  ConditionLost,
  DatabaseUnavailable,
  InvalidField,
  InvalidValue,
  OutcomeUnknown,
  OutOfBounds,
  Overloaded,
  PluginNotRegistered,
  QuotaExceeded,
  RequestIdReusedError,
  ScopeDenied,
  ShuttingDown,
  TooLarge,
  TooLargeToRead,
  WrongType,
} from "../state/errors.ts";
import type { Failure as PartFailure } from "../state/requests.ts";

/** `ErrorInfo.domain` of every error. */
export const errorDomain = "pluginstate";

const detailsKey = "grpc-status-details-bin";
/**
 * What a gRPC library with a retry policy reads in place of RetryInfo. Without it the library waits for a
 * random part of its own backoff, which may come to nearly nothing, and its attempts are soon used up.
 */
const pushbackKey = "grpc-retry-pushback-ms";
/** When to try again after the database was away, or another sidecar is to take over. */
const unavailableRetryMs = 500;
/** When to try again after too many calls were waiting. */
const overloadedRetryMs = 100;

/** A failure as clients see it. */
interface Failure {
  readonly code: Code;
  readonly reason: ErrorReason;
  /** A sentence for people; what a program needs of it stands in `metadata` too. */
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violation?: { readonly field: string; readonly description: string };
  readonly retryAfterMs?: number;
  readonly failedChecks?: readonly MessageInitShape<typeof FailedCheckSchema>[];
}

/** The one place where errors become statuses. What isn't ours is INTERNAL, and stays in the log. */
export function statusOf(error: unknown): { code: Code; details: string; metadata: Metadata } {
  return encodeFailure(failureOf(error));
}

function failureOf(error: unknown): Failure {
  if (error instanceof InvalidField || error instanceof MalformedRequest) {
    return invalid(ErrorReason.INVALID_FIELD, error.message, error);
  }
  if (error instanceof InvalidValue) {
    const metadata = error.offset === undefined ? {} : { offset: String(error.offset) };
    return { ...invalid(ErrorReason.INVALID_VALUE, error.message, error), metadata };
  }
  if (error instanceof TooLarge) {
    const problem = `has ${error.size} bytes, of at most ${error.limit}`;
    const metadata = { size: String(error.size), limit: String(error.limit) };
    const violation = { field: error.field, problem };
    return { ...invalid(ErrorReason.TOO_LARGE, error.message, violation), metadata };
  }
  return failureOfWrite(error) ?? failureOfState(error);
}

/** Writes that were possible, but not as things are. */
function failureOfWrite(error: unknown): Failure | undefined {
  if (error instanceof ConditionLost) {
    const { code, reason } = lostConditions[error.condition.kind];
    return { code, reason, message: error.message, metadata: currentOf(error) };
  }
  if (error instanceof WrongType || error instanceof OutOfBounds) {
    const reason = error instanceof WrongType ? ErrorReason.WRONG_TYPE : ErrorReason.OUT_OF_BOUNDS;
    const metadata = currentOf(error);
    return { code: Code.FAILED_PRECONDITION, reason, message: error.message, metadata };
  }
  if (error instanceof ChecksFailed) {
    return failureOfChecks(error);
  }
  if (error instanceof QuotaExceeded) {
    const { quota, used, asked, limit, message } = error;
    const metadata = { quota, used: `${used}`, asked: `${asked}`, limit: `${limit}` };
    const reason = ErrorReason.QUOTA_EXCEEDED;
    return { code: Code.RESOURCE_EXHAUSTED, reason, message, metadata };
  }
  if (error instanceof RequestIdReusedError) {
    const violation = { field: "request_id", problem: "was used for another request" };
    return invalid(ErrorReason.REQUEST_ID_REUSED, error.message, violation);
  }
  return undefined;
}

const lostConditions = {
  revision: { code: Code.ABORTED, reason: ErrorReason.REVISION_MISMATCH },
  absent: { code: Code.ALREADY_EXISTS, reason: ErrorReason.ENTRY_EXISTS },
  present: { code: Code.FAILED_PRECONDITION, reason: ErrorReason.ENTRY_ABSENT },
};

function currentOf({ current }: { readonly current: bigint | undefined }): Record<string, string> {
  return current === undefined ? {} : { current: String(current) };
}

function failureOfChecks({ failures, message }: ChecksFailed): Failure {
  const areConditions = failures.every(({ reason }) => reason === "condition");
  return {
    code: areConditions ? Code.ABORTED : Code.FAILED_PRECONDITION,
    reason: ErrorReason.CHECKS_FAILED,
    message,
    failedChecks: failures.map((failure) => ({
      part: { case: failure.part, value: failure.index },
      reason: reasonOfPart(failure),
      ...(failure.current !== undefined && { currentRevision: failure.current }),
    })),
  };
}

function reasonOfPart({ reason, condition }: PartFailure): ErrorReason {
  switch (reason) {
    case "condition":
      return lostConditions[condition?.kind ?? "revision"].reason;
    case "wrong_type":
      return ErrorReason.WRONG_TYPE;
    case "out_of_bounds":
      return ErrorReason.OUT_OF_BOUNDS;
    case "too_large":
      return ErrorReason.TOO_LARGE;
  }
}

function failureOfState(error: unknown): Failure {
  const message = error instanceof Error ? error.message : "";
  if (error instanceof PluginNotRegistered) {
    const metadata = { plugin: error.plugin };
    const reason = ErrorReason.PLUGIN_NOT_REGISTERED;
    return { code: Code.FAILED_PRECONDITION, reason, message, metadata };
  }
  if (error instanceof TooLargeToRead) {
    const metadata = { limit: String(error.limit) };
    return { code: Code.RESOURCE_EXHAUSTED, reason: ErrorReason.TOO_LARGE, message, metadata };
  }
  if (error instanceof DatabaseUnavailable) {
    const reason = ErrorReason.DATABASE_UNAVAILABLE;
    return { code: Code.UNAVAILABLE, reason, message, retryAfterMs: unavailableRetryMs };
  }
  if (error instanceof OutcomeUnknown) {
    return { code: Code.UNKNOWN, reason: ErrorReason.OUTCOME_UNKNOWN, message };
  }
  if (error instanceof Overloaded) {
    const reason = ErrorReason.OVERLOADED;
    return { code: Code.RESOURCE_EXHAUSTED, reason, message, retryAfterMs: overloadedRetryMs };
  }
  if (error instanceof ShuttingDown) {
    const reason = ErrorReason.SHUTTING_DOWN;
    return { code: Code.UNAVAILABLE, reason, message, retryAfterMs: unavailableRetryMs };
  }
  if (error instanceof CapabilityDenied) {
    const metadata = { capability: error.capability };
    const reason = ErrorReason.CAPABILITY_DENIED;
    return { code: Code.PERMISSION_DENIED, reason, message, metadata };
  }
  if (error instanceof ScopeDenied) {
    const metadata = { scope_kind: error.kind };
    return { code: Code.PERMISSION_DENIED, reason: ErrorReason.SCOPE_DENIED, message, metadata };
  }
  const internal = "an internal error; the sidecar's log has its cause";
  return { code: Code.INTERNAL, reason: ErrorReason.INTERNAL, message: internal };
}

function invalid(
  reason: ErrorReason,
  message: string,
  { field, problem }: { readonly field: string; readonly problem: string },
): Failure {
  const violation = { field, description: problem };
  return { code: Code.INVALID_ARGUMENT, reason, message, violation };
}

/** What a call without the listener's token gets. The same for none and for a wrong one. */
export function unauthenticated(): OutgoingStatus {
  const message = "this listener demands a token: authorization: Bearer TOKEN";
  const reason = ErrorReason.UNAUTHENTICATED;
  return encodeFailure({ code: Code.UNAUTHENTICATED, reason, message });
}

/**
 * Gives a status that grpc-js made by itself the details that every error of ours has.
 * A status that has them, or is OK, passes unchanged.
 */
export function completeStatus(status: OutgoingStatus): OutgoingStatus {
  if (status.code === Code.OK || (status.metadata?.get(detailsKey).length ?? 0) > 0) {
    return status;
  }
  const failure = transportFailure(status);
  return failure === undefined ? status : { ...status, ...encodeFailure(failure) };
}

function transportFailure({ code, details }: OutgoingStatus): Failure | undefined {
  const message = details ?? "";
  if (code === Code.DEADLINE_EXCEEDED) {
    return { code, reason: ErrorReason.DEADLINE_EXCEEDED, message };
  }
  if (code === Code.CANCELLED) {
    return { code, reason: ErrorReason.CANCELLED, message };
  }
  if (code === Code.RESOURCE_EXHAUSTED && message.startsWith("Received message")) {
    return { code, reason: ErrorReason.TOO_LARGE, message };
  }
  if (code === Code.INTERNAL && message.startsWith("Invalid grpc-timeout")) {
    return { code: Code.INVALID_ARGUMENT, reason: ErrorReason.INVALID_FIELD, message };
  }
  if (code === Code.INTERNAL && message.startsWith("Failed to decompress")) {
    return { code: Code.INVALID_ARGUMENT, reason: ErrorReason.INVALID_FIELD, message };
  }
  if (code === Code.UNIMPLEMENTED) {
    return { code, reason: ErrorReason.UNSUPPORTED, message };
  }
  return undefined;
}

function encodeFailure(failure: Failure): { code: Code; details: string; metadata: Metadata } {
  const details = [pack(ErrorInfoSchema, errorInfo(failure))];
  if (failure.violation !== undefined) {
    details.push(pack(BadRequestSchema, { fieldViolations: [failure.violation] }));
  }
  if (failure.failedChecks !== undefined) {
    details.push(pack(FailedChecksSchema, { failed: [...failure.failedChecks] }));
  }
  if (failure.retryAfterMs !== undefined) {
    details.push(pack(RetryInfoSchema, { retryDelay: duration(failure.retryAfterMs) }));
  }
  const { code, message } = failure;
  const status = toBinary(StatusSchema, create(StatusSchema, { code, message, details }));
  const metadata = new Metadata();
  metadata.set(detailsKey, Buffer.from(status));
  if (failure.retryAfterMs !== undefined) {
    metadata.set(pushbackKey, pushback(failure.retryAfterMs));
  }
  return { code, details: message, metadata };
}

/** A quarter more or less at random, so that clients who were told at once don't come back at once. */
function pushback(afterMs: number): string {
  return `${Math.round(afterMs * (0.75 + Math.random() / 2))}`;
}

function errorInfo({ reason, metadata }: Failure): MessageInitShape<typeof ErrorInfoSchema> {
  const name = ErrorReasonSchema.value[reason]?.name ?? "";
  const domain = errorDomain;
  return { reason: name.replace("ERROR_REASON_", ""), domain, metadata: { ...metadata } };
}

function pack<T extends DescMessage>(schema: T, init: MessageInitShape<T>) {
  return anyPack(schema, create(schema, init));
}

function duration(ms: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
}
