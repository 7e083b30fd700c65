import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import { ScopeKind, type Entry as WireEntry } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { ErrorReasonSchema, FailedChecksSchema } from "../../src/gen/pluginstate/v1/errors_pb.ts";
import type {
  CheckSchema,
  DeleteResponse,
  OperationResult,
  OperationSchema,
  SetResponse,
  UpdateRequestSchema,
  UpdateResponse,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { CallError, type CallOptions, type TestClient } from "../support/client.ts";
import type { Name as WireName } from "../support/model.ts";
import type {
  Change,
  Check,
  Condition,
  Entry,
  FailedPart,
  Json,
  Name,
  Outcome,
  Refusal,
  Reply,
  Result,
  ServiceRequest,
  Transact,
  Write,
} from "./operation.ts";

/** The places of the workload, as requests name them. */
const places: Readonly<Record<string, Omit<WireName, "key">>> = {
  instance: { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: "" },
  issue: { scope: { kind: ScopeKind.ISSUE, id: "ISSUE-1" }, namespace: "" },
  run: { scope: { kind: ScopeKind.RUN, id: "run-1" }, namespace: "notes" },
};

/** A name as the API has it. */
export function wireName({ place, key }: Name): WireName {
  return { ...places[place]!, key };
}

/** Asks a sidecar, and returns what came of it; never rejects. */
export async function perform(
  client: TestClient,
  request: ServiceRequest,
  options: CallOptions = {},
): Promise<Outcome> {
  try {
    return { kind: "ok", reply: await replyTo(request, callerOf(client, options)) };
  } catch (error) {
    if (error instanceof CallError) {
      return failed(error, request);
    }
    throw error;
  }
}

type Call = TestClient["call"];

function callerOf(client: TestClient, options: CallOptions): Call {
  return (method, request) => client.call(method, request, options);
}

async function replyTo(request: ServiceRequest, call: Call): Promise<Reply> {
  switch (request.do) {
    case "get": {
      const reply = await call("get", wireName(request.name));
      return { do: "get", revision: reply.revision, entry: entryOf(reply.entry) };
    }
    case "batchGet": {
      const { results, revision } = await call("batchGet", {
        names: request.names.map(wireName),
      });
      return { do: "batchGet", revision, entries: results.map(({ entry }) => entryOf(entry)) };
    }
    case "list": {
      const { do: _, place, ...listing } = request;
      const { entries, revision, nextPageToken } = await call("list", {
        ...places[place]!,
        ...listing,
      });
      const found = entries.map((entry) => entryOf(entry)!);
      return { do: "list", revision, entries: found, more: nextPageToken !== "" };
    }
    case "set":
      return setResult(await call("set", setRequest(request)));
    case "delete":
      return deleteResult(await call("delete", deleteRequest(request)));
    case "update":
      return updateResult(await call("update", updateRequest(request)));
    case "transact": {
      const { results, revision } = await call("transact", transactRequest(request));
      return { do: "transact", revision, results: results.map(resultOf) };
    }
  }
}

type WithId<T> = T & { readonly requestId?: string };

function setRequest(request: WithId<Write & { do: "set" }>) {
  return { ...common(request), valueJson: JSON.stringify(request.value) };
}

function deleteRequest(request: WithId<Write & { do: "delete" }>) {
  return common(request);
}

function updateRequest(request: WithId<Write & { do: "update" }>) {
  return { ...common(request), change: changeOf(request.change) };
}

function transactRequest({ checks, operations, requestId }: WithId<Transact>) {
  return {
    checks: checks.map(checkOf),
    operations: operations.map(operationOf),
    ...(requestId === undefined ? {} : { requestId }),
  };
}

function common({ name, condition, returnPrevious, requestId }: WithId<Write>) {
  return {
    ...wireName(name),
    ...(condition === undefined ? {} : { condition: conditionOf(condition) }),
    ...(returnPrevious === undefined ? {} : { returnPrevious }),
    ...(requestId === undefined ? {} : { requestId }),
  };
}

function conditionOf(condition: Condition) {
  switch (condition.kind) {
    case "revision":
      return { case: "ifRevision" as const, value: condition.revision };
    case "absent":
      return { case: "ifAbsent" as const, value: true };
    case "present":
      return { case: "ifPresent" as const, value: true };
  }
}

function checkOf({ name, condition }: Check): MessageInitShape<typeof CheckSchema> {
  return { ...wireName(name), condition: conditionOf(condition) };
}

function operationOf(write: Write): MessageInitShape<typeof OperationSchema> {
  switch (write.do) {
    case "set":
      return { operation: { case: "set", value: setRequest(write) } };
    case "delete":
      return { operation: { case: "delete", value: deleteRequest(write) } };
    case "update":
      return { operation: { case: "update", value: updateRequest(write) } };
  }
}

function changeOf(change: Change): MessageInitShape<typeof UpdateRequestSchema>["change"] & object {
  switch (change.kind) {
    case "increment": {
      const max = change.max === undefined ? "" : String(change.max);
      return { case: "increment", value: { by: String(change.by), max } };
    }
    case "append": {
      const { unique, maxLength } = change;
      return {
        case: "append",
        value: { valueJson: JSON.stringify(change.item), unique, maxLength },
      };
    }
    case "mergePatch":
      return { case: "mergePatch", value: JSON.stringify(change.patch) };
  }
}

function resultOf({ result }: OperationResult): Result {
  switch (result.case) {
    case "set":
      return setResult(result.value);
    case "delete":
      return deleteResult(result.value);
    case "update":
      return updateResult(result.value);
    default:
      throw new Error("a result of a Transact is empty");
  }
}

function setResult({ revision, created, previous }: SetResponse): Result {
  return { do: "set", revision, created, ...previousOf(previous) };
}

function deleteResult({ revision, existed, previous }: DeleteResponse): Result {
  return { do: "delete", revision, existed, ...previousOf(previous) };
}

function updateResult(reply: UpdateResponse): Result {
  const { revision, created, changed } = reply;
  const value = jsonOf(reply.valueJson);
  return { do: "update", revision, value, created, changed, ...previousOf(reply.previous) };
}

function previousOf(previous: WireEntry | undefined) {
  const entry = entryOf(previous);
  return entry === undefined ? {} : { previous: entry };
}

function entryOf(entry: WireEntry | undefined): Entry | undefined {
  if (entry === undefined) {
    return undefined;
  }
  const { key, revision, valueJson } = entry;
  const value = valueJson === "" ? {} : { value: jsonOf(valueJson) };
  return { place: placeOf(entry), key, revision, ...value };
}

function placeOf({ scope, namespace }: WireEntry): string {
  const [place] = Object.entries(places).find(
    ([, known]) =>
      known.scope.kind === scope?.kind &&
      known.scope.id === scope.id &&
      (known.namespace || "default") === namespace,
  ) ?? ["a place that nobody asked for"];
  return place;
}

/** JSON text as a value: {@link Json} holds all that the workload writes. */
export function jsonOf(text: string): Json {
  return JSON.parse(text);
}

/** Errors that say that nothing was written, whatever was there. */
const sayNothingWasDone: ReadonlySet<string | undefined> = new Set([
  "DATABASE_UNAVAILABLE",
  "SHUTTING_DOWN",
  "OVERLOADED",
]);

/** Errors that leave it open. */
const leaveItOpen: ReadonlySet<string | undefined> = new Set([
  "OUTCOME_UNKNOWN",
  "DEADLINE_EXCEEDED",
  "CANCELLED",
  // The client's own library lost the sidecar.
  undefined,
]);

function failed(error: CallError, request: ServiceRequest): Outcome {
  const text = `${error.codeName} ${error.reason}: ${error.message}`;
  if (sayNothingWasDone.has(error.reason)) {
    return { kind: "notDone", error: text };
  }
  return leaveItOpen.has(error.reason)
    ? { kind: "unknown", error: text }
    : { kind: "refused", refusal: refusalOf(error, request) };
}

function refusalOf(error: CallError, request: ServiceRequest): Refusal {
  const reason = error.reason ?? "";
  if (request.do === "transact") {
    return { reason, failed: failedPartsOf(error) };
  }
  const current = error.metadata?.["current"];
  return { reason, ...(current === undefined ? {} : { current: BigInt(current) }) };
}

function failedPartsOf(error: CallError): FailedPart[] {
  const { metadata } = error.cause as ServiceError;
  const [bytes] = metadata.get("grpc-status-details-bin");
  const details = Buffer.isBuffer(bytes) ? fromBinary(StatusSchema, bytes).details : [];
  const checks = details.map((any) => anyUnpack(any, FailedChecksSchema)).find((one) => !!one);
  return (checks?.failed ?? []).map(({ part, reason, currentRevision }) => ({
    part: part.case ?? "check",
    index: part.value ?? -1,
    reason: ErrorReasonSchema.value[reason]?.name.replace("ERROR_REASON_", "") ?? String(reason),
    ...(currentRevision === undefined ? {} : { current: currentRevision }),
  }));
}
