import { createHash } from "node:crypto";
import type { Duration } from "@bufbuild/protobuf/wkt";
import type {
  Check,
  DeleteRequest,
  Operation as OperationMessage,
  SetRequest,
  TransactRequest,
  UpdateRequest,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Revision } from "../state/entry.ts";
import { InvalidField, TooLarge } from "../state/errors.ts";
import {
  maxTransactBytes,
  maxTransactChecks,
  maxTransactOperations,
  maxTtlUs,
} from "../state/limits.ts";
import type {
  CheckEntry,
  Condition,
  DeleteEntry,
  Expiry,
  Operation,
  RequestId,
  SetEntry,
  UpdateEntry,
  Write,
} from "../state/requests.ts";
import { parseJson, parseName, within, withinEach } from "./parse.ts";
import { parseChange } from "./parse-change.ts";

/** @throws {InvalidField} {@link InvalidValue} {@link TooLarge} */
export function parseSet(request: SetRequest, maxValueBytes: number): Write {
  return alone(parseSetEntry(request, maxValueBytes), request.requestId);
}

/** @throws {InvalidField} {@link TooLarge} */
export function parseDelete(request: DeleteRequest): Write {
  return alone(parseDeleteEntry(request), request.requestId);
}

/** @throws {InvalidField} {@link InvalidValue} {@link TooLarge} */
export function parseUpdate(request: UpdateRequest, maxValueBytes: number): Write {
  return alone(parseUpdateEntry(request, maxValueBytes), request.requestId);
}

/** @throws {InvalidField} {@link InvalidValue} {@link TooLarge} */
export function parseTransact(request: TransactRequest, maxValueBytes: number): Write {
  checkCount("checks", request.checks.length, maxTransactChecks);
  checkCount("operations", request.operations.length, maxTransactOperations);
  if (request.checks.length + request.operations.length === 0) {
    throw new InvalidField("operations", "or checks are required");
  }
  const checks = withinEach("checks", request.checks, parseCheck);
  const operations = withinEach("operations", request.operations, (operation) =>
    parseOperation(operation, maxValueBytes),
  );
  checkBytes(checks, operations);
  // Not the digest of one operation alone: that would be another request.
  const requestId = parseRequestId(request.requestId, ["transact", checks, operations]);
  return { checks, operations, requestId };
}

function alone(operation: Operation, requestId: string): Write {
  const operations = [operation];
  return { checks: [], operations, requestId: parseRequestId(requestId, operation) };
}

function checkCount(field: string, count: number, max: number): void {
  if (count > max) {
    throw new InvalidField(field, `are ${count}, of at most ${max}`);
  }
}

/** A Transact goes into one statement whole. */
function checkBytes(checks: readonly CheckEntry[], operations: readonly Operation[]): void {
  let bytes = 0;
  for (const { name } of checks) bytes += nameBytes(name);
  for (const operation of operations) bytes += nameBytes(operation.name) + valueBytes(operation);
  if (bytes > maxTransactBytes) {
    throw new TooLarge("operations", bytes, maxTransactBytes);
  }
}

function nameBytes({ scope, namespace, key }: Operation["name"]): number {
  const { byteLength } = Buffer;
  return byteLength(scope.id ?? "") + byteLength(namespace) + byteLength(key);
}

function valueBytes(operation: Operation): number {
  switch (operation.kind) {
    case "set":
      return Buffer.byteLength(operation.valueJson);
    case "delete":
      return 0;
    default:
      return Buffer.byteLength(operation.argumentJson);
  }
}

function parseCheck(check: Check): CheckEntry {
  const condition = parseCondition(check.condition);
  if (condition === undefined) {
    throw new InvalidField("condition", "is required: if_revision, if_absent or if_present");
  }
  return { kind: "check", name: parseName(check), condition };
}

function parseOperation({ operation }: OperationMessage, maxValueBytes: number): Operation {
  switch (operation.case) {
    case undefined:
      throw new InvalidField("operation", "is required: set, delete or update");
    case "set":
      return within("set", () => partOf(operation.value, parseSetEntry, maxValueBytes));
    case "delete":
      return within("delete", () => partOf(operation.value, parseDeleteEntry, maxValueBytes));
    case "update":
      return within("update", () => partOf(operation.value, parseUpdateEntry, maxValueBytes));
  }
}

function partOf<Request extends { readonly requestId: string }>(
  request: Request,
  parse: (request: Request, maxValueBytes: number) => Operation,
  maxValueBytes: number,
): Operation {
  if (request.requestId !== "") {
    throw new InvalidField("request_id", "must be empty here: the Transact has one for all");
  }
  return parse(request, maxValueBytes);
}

function parseSetEntry(request: SetRequest, maxValueBytes: number): SetEntry {
  return {
    kind: "set",
    name: parseName(request),
    condition: parseCondition(request.condition),
    valueJson: parseJson("value_json", request.valueJson, maxValueBytes),
    expiry: { ttlUs: parseTtl(request.ttl), keep: request.keepTtl },
    returnPrevious: request.returnPrevious,
  };
}

function parseDeleteEntry(request: DeleteRequest): DeleteEntry {
  return {
    kind: "delete",
    name: parseName(request),
    condition: parseCondition(request.condition),
    returnPrevious: request.returnPrevious,
  };
}

function parseUpdateEntry(request: UpdateRequest, maxValueBytes: number): UpdateEntry {
  return {
    ...parseChange(request.change, maxValueBytes),
    name: parseName(request),
    condition: parseCondition(request.condition),
    expiry: parseUpdateExpiry(request),
    returnPrevious: request.returnPrevious,
  };
}

/** An entry that is changed keeps its time to live, unless the request gives it one. */
function parseUpdateExpiry({ ttl, keepTtl }: UpdateRequest): Expiry {
  const ttlUs = parseTtl(ttl);
  return { ttlUs, keep: keepTtl || ttlUs === undefined };
}

function parseCondition(condition: SetRequest["condition"]): Condition | undefined {
  switch (condition.case) {
    case undefined:
      return undefined;
    case "ifRevision":
      if (condition.value < 0n) {
        throw new InvalidField("if_revision", "must not be negative");
      }
      return { kind: "revision", revision: condition.value as Revision };
    case "ifAbsent":
      return { kind: mustBeTrue("if_absent", condition.value, "absent") };
    case "ifPresent":
      return { kind: mustBeTrue("if_present", condition.value, "present") };
  }
}

function mustBeTrue<T>(field: string, value: boolean, result: T): T {
  if (!value) {
    throw new InvalidField(field, "must be true, or left out");
  }
  return result;
}

function parseTtl(ttl: Duration | undefined): bigint | undefined {
  if (ttl === undefined) {
    return undefined;
  }
  const { seconds, nanos } = ttl;
  if (Math.abs(nanos) > 999_999_999 || (seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0)) {
    throw new InvalidField("ttl", "is no valid google.protobuf.Duration");
  }
  const nanoseconds = seconds * 1_000_000_000n + BigInt(nanos);
  if (nanoseconds <= 0n) {
    throw new InvalidField("ttl", "must be more than 0");
  }
  // The database counts microseconds; less than one is one.
  const ttlUs = (nanoseconds + 999n) / 1000n;
  if (ttlUs > maxTtlUs) {
    throw new InvalidField("ttl", "must be at most 100 years");
  }
  return ttlUs;
}

const uuid = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/;

/**
 * A request's id, with a digest of what it asks for.
 *
 * @throws {InvalidField}
 */
export function parseRequestId(text: string, request: unknown): RequestId | undefined {
  if (text === "") {
    return undefined;
  }
  const id = text.toLowerCase();
  if (!uuid.test(id)) {
    throw new InvalidField("request_id", "must be a UUID");
  }
  return { id, fingerprint: digest(request) };
}

function digest(request: unknown): string {
  const text = JSON.stringify(request, (_name, value: unknown) =>
    typeof value === "bigint" ? `${value}n` : value,
  );
  return createHash("sha256").update(text).digest("base64url");
}
