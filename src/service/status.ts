import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { status as Code, Metadata } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../gen/google/rpc/status_pb.ts";
import { ErrorReason, ErrorReasonSchema } from "../gen/pluginstate/v1/errors_pb.ts";
import { MalformedRequest } from "../rpc/decode.ts";
import type { OutgoingStatus } from "../rpc/status-interceptor.ts";
import {
  DatabaseUnavailable,
  InvalidField,
  InvalidValue,
  OutcomeUnknown,
  Overloaded,
  PluginNotRegistered,
  ShuttingDown,
  TooLarge,
  TooLargeToRead,
} from "../state/errors.ts";

/** `ErrorInfo.domain` of every error. */
export const errorDomain = "pluginstate";

const detailsKey = "grpc-status-details-bin";
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
  return failureOfState(error);
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
  if (failure.retryAfterMs !== undefined) {
    details.push(pack(RetryInfoSchema, { retryDelay: duration(failure.retryAfterMs) }));
  }
  const { code, message } = failure;
  const status = toBinary(StatusSchema, create(StatusSchema, { code, message, details }));
  const metadata = new Metadata();
  metadata.set(detailsKey, Buffer.from(status));
  return { code, details: message, metadata };
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
