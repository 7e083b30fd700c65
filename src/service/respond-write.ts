import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteResponseSchema,
  OperationResultSchema,
  SetResponseSchema,
  TransactResponseSchema,
  UpdateResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import {
  ChecksFailed,
  ConditionLost,
  OutOfBounds,
  QuotaExceeded,
  RequestIdReusedError,
  TooLarge,
  WrongType,
} from "../state/errors.ts";
import type { StateBounds } from "../state/limits.ts";
import type {
  Done,
  Failure,
  Operation,
  OperationResult,
  OverQuota,
  Write,
  WriteOutcome,
} from "../state/requests.ts";
import { entryMessage } from "./respond.ts";

/**
 * What a write of one operation did.
 *
 * @throws {StateError} that says why nothing was done.
 */
export function onlyResult(outcome: WriteOutcome, bounds: StateBounds): OperationResult {
  const [failure] = outcome.kind === "not_done" ? outcome.failures : [];
  if (failure !== undefined) {
    throw errorOf(failure);
  }
  const [result] = done(outcome, bounds).results;
  if (result === undefined) {
    throw new Error("a write of one operation has no result");
  }
  return result;
}

/**
 * What a write did.
 *
 * @throws {StateError} that says why nothing was done.
 */
export function done(outcome: WriteOutcome, bounds: StateBounds): Done {
  switch (outcome.kind) {
    case "done":
      return outcome;
    case "not_done":
      throw new ChecksFailed(outcome.failures);
    case "over_quota":
      throw quotaExceeded(outcome, bounds);
    case "request_id_reused":
      throw new RequestIdReusedError();
  }
}

function quotaExceeded({ quota, used, asked }: OverQuota, bounds: StateBounds): QuotaExceeded {
  const limit = quota === "entries" ? bounds.quotaEntries : bounds.quotaBytes;
  return new QuotaExceeded(quota, used, asked, limit ?? 0);
}

function errorOf(failure: Failure): Error {
  const { reason, condition, current, tooLarge } = failure;
  switch (reason) {
    case "condition":
      return condition === undefined
        ? new Error("a condition was lost that nobody set")
        : new ConditionLost(condition, current);
    case "wrong_type":
      return new WrongType(current);
    case "out_of_bounds":
      return new OutOfBounds(current);
    case "too_large":
      return new TooLarge("result", tooLarge?.size ?? 0, tooLarge?.limit ?? 0);
  }
}

/** The reply to a Set. */
export function setResponse(result: OperationResult): MessageInitShape<typeof SetResponseSchema> {
  return { revision: result.revision, created: !result.existed, previous: previousOf(result) };
}

/** The reply to a Delete. */
export function deleteResponse(
  result: OperationResult,
): MessageInitShape<typeof DeleteResponseSchema> {
  return { existed: result.existed, revision: result.revision, previous: previousOf(result) };
}

/** The reply to an Update. */
export function updateResponse(
  result: OperationResult,
): MessageInitShape<typeof UpdateResponseSchema> {
  return {
    revision: result.revision,
    valueJson: result.valueJson ?? "",
    created: !result.existed,
    changed: result.changed,
    previous: previousOf(result),
  };
}

function operationResult(
  operation: Operation,
  result: OperationResult,
): MessageInitShape<typeof OperationResultSchema> {
  switch (operation.kind) {
    case "set":
      return { result: { case: "set", value: setResponse(result) } };
    case "delete":
      return { result: { case: "delete", value: deleteResponse(result) } };
    default:
      return { result: { case: "update", value: updateResponse(result) } };
  }
}

/** The reply to a Transact. */
export function transactResponse(
  { operations }: Write,
  { results, revision }: Done,
): MessageInitShape<typeof TransactResponseSchema> {
  return {
    revision,
    results: operations.flatMap((operation, index) => {
      const result = results[index];
      return result === undefined ? [] : operationResult(operation, result);
    }),
  };
}

function previousOf({ previous }: OperationResult) {
  return previous && entryMessage(previous);
}
