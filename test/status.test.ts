import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.ts";
import { statusOf } from "../src/service/status.ts";
import type { Revision } from "../src/state/entry.ts";
import * as errors from "../src/state/errors.ts";
import type { Failure } from "../src/state/requests.ts";

/** What a client reads out of the status of an error. */
function seenByClient(error: unknown) {
  const { code, details: message, metadata } = statusOf(error);
  const [bytes] = metadata.get("grpc-status-details-bin");
  const inside = fromBinary(StatusSchema, bytes as Buffer);
  const info = inside.details.map((any) => anyUnpack(any, ErrorInfoSchema)).find(Boolean);
  const hasRetryInfo = inside.details.some((any) => anyUnpack(any, RetryInfoSchema));
  return { code: status[code], inside: inside.code, message, reason: info?.reason, hasRetryInfo };
}

const current = 7n as Revision;
const present = { kind: "present" } as const;
const failed = (reason: Failure["reason"]): Failure => {
  return { part: "check", index: 0, reason, condition: present, current, tooLarge: undefined };
};

test.for<[errors.StateError, string, string, boolean]>([
  [new errors.InvalidField("key", "is required"), "INVALID_ARGUMENT", "INVALID_FIELD", false],
  [new errors.InvalidValue("value_json", "no", 3), "INVALID_ARGUMENT", "INVALID_VALUE", false],
  [new errors.TooLarge("key", 2, 1), "INVALID_ARGUMENT", "TOO_LARGE", false],
  [new errors.TooLargeToRead(1), "RESOURCE_EXHAUSTED", "TOO_LARGE", false],
  [
    new errors.ConditionLost({ kind: "revision", revision: current }, current),
    "ABORTED",
    "REVISION_MISMATCH",
    false,
  ],
  [new errors.ConditionLost({ kind: "absent" }, current), "ALREADY_EXISTS", "ENTRY_EXISTS", false],
  [new errors.ConditionLost(present, undefined), "FAILED_PRECONDITION", "ENTRY_ABSENT", false],
  [new errors.WrongType(current), "FAILED_PRECONDITION", "WRONG_TYPE", false],
  [new errors.OutOfBounds(current), "FAILED_PRECONDITION", "OUT_OF_BOUNDS", false],
  [new errors.ChecksFailed([failed("condition")]), "ABORTED", "CHECKS_FAILED", false],
  [
    new errors.ChecksFailed([failed("condition"), failed("too_large")]),
    "FAILED_PRECONDITION",
    "CHECKS_FAILED",
    false,
  ],
  [new errors.RequestIdReusedError(), "INVALID_ARGUMENT", "REQUEST_ID_REUSED", false],
  [new errors.QuotaExceeded("bytes", 5n, 2n, 6), "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", false],
  [new errors.PluginNotRegistered("p"), "FAILED_PRECONDITION", "PLUGIN_NOT_REGISTERED", false],
  [new errors.DatabaseUnavailable(), "UNAVAILABLE", "DATABASE_UNAVAILABLE", true],
  [new errors.OutcomeUnknown(), "UNKNOWN", "OUTCOME_UNKNOWN", false],
  [new errors.Overloaded(), "RESOURCE_EXHAUSTED", "OVERLOADED", true],
  [new errors.ShuttingDown(), "UNAVAILABLE", "SHUTTING_DOWN", true],
])("%s is %s with reason %s", ([error, code, reason, hasRetryInfo]) => {
  const seen = seenByClient(error);
  expect(seen).toMatchObject({ code, reason, hasRetryInfo, message: error.message });
  expect(status[seen.inside]).toBe(code);
});

test("what may be tried again says when, also to a library that retries by itself", () => {
  const pushbacks = Array.from({ length: 100 }, () => {
    const [text] = statusOf(new errors.DatabaseUnavailable()).metadata.get(
      "grpc-retry-pushback-ms",
    );
    return Number(text);
  });
  // Half a second, as RetryInfo says, and not all the same.
  expect(Math.min(...pushbacks)).toBeGreaterThanOrEqual(375);
  expect(Math.max(...pushbacks)).toBeLessThanOrEqual(625);
  expect(new Set(pushbacks).size).toBeGreaterThan(1);
  const refused = statusOf(new errors.InvalidField("key", "is required")).metadata;
  expect(refused.get("grpc-retry-pushback-ms")).toEqual([]);
});

test("an error that isn't ours is INTERNAL and keeps what it says to itself", () => {
  const seen = seenByClient(new Error('duplicate key: insert into "plugin_state" values (secret)'));
  expect(seen).toMatchObject({ code: "INTERNAL", reason: "INTERNAL" });
  expect(seen.message).not.toMatch(/insert|secret/);
});
