import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteResponse,
  OperationResult,
  OperationSchema,
  SetResponse,
  UpdateResponse,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { CallError, type TestClient } from "./client.ts";
import { contentOf, type Listing, type ModelEntry, type Name } from "./model.ts";

/** What must hold of an entry. */
export type Condition =
  | { readonly case: "ifRevision"; readonly value: bigint }
  | { readonly case: "ifAbsent" | "ifPresent"; readonly value: true };

/** What an update does. */
export type Change =
  | { readonly case: "increment"; readonly value: Increment }
  | { readonly case: "mergePatch"; readonly value: string }
  | { readonly case: "append"; readonly value: Append };

export interface Increment {
  readonly by: string;
  readonly initial: string;
  readonly min: string;
  readonly max: string;
  readonly clamp: boolean;
}

export interface Append {
  readonly valueJson: string;
  readonly maxLength: number;
  readonly unique: boolean;
}

/** A write of one entry. */
export type Write<N = Name, C = Condition> = {
  readonly name: N;
  readonly condition?: C | undefined;
  readonly returnPrevious?: boolean;
  /** The time to live that it gives. */
  readonly hours?: number | undefined;
  readonly keepTtl?: boolean;
} & (
  | { readonly do: "set"; readonly valueJson: string }
  | { readonly do: "delete" }
  | { readonly do: "update"; readonly change: Change }
);

export interface Check<N = Name, C = Condition> {
  readonly name: N;
  readonly condition: C;
}

/** Several writes that are done together or not at all. */
export interface Transact<N = Name, C = Condition> {
  readonly do: "transact";
  readonly checks: readonly Check<N, C>[];
  readonly operations: readonly Write<N, C>[];
}

/** One operation of a random history. */
export type Operation =
  | Write
  | Transact
  | { readonly do: "get"; readonly name: Name }
  | { readonly do: "batchGet"; readonly names: readonly Name[] }
  | { readonly do: "list"; readonly listing: Listing };

/** What the reply to a write of one entry says. */
export type WriteReply = {
  readonly revision: bigint;
  readonly previous?: ModelEntry | undefined;
} & (
  | { readonly created: boolean }
  | { readonly existed: boolean }
  | { readonly valueJson: string; readonly created: boolean; readonly changed: boolean }
);

/** Why an operation wasn't done. */
export interface Refusal {
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** As {@link CallError.failedChecks}; empty unless it was a Transact's parts that failed. */
  readonly failedChecks: readonly string[];
}

/** What a reply says. */
export type Outcome =
  | WriteReply
  | { readonly revision: bigint; readonly results: readonly WriteReply[] }
  | { readonly revision: bigint; readonly entry: ModelEntry | undefined }
  | { readonly revision: bigint; readonly found: readonly (ModelEntry | undefined)[] }
  | { readonly revision: bigint; readonly entries: readonly ModelEntry[]; readonly more: boolean }
  | { readonly refused: Refusal };

/** Does an operation on a sidecar, and returns what its reply or refusal says. */
export async function perform(client: TestClient, operation: Operation): Promise<Outcome> {
  try {
    return await reply(client, operation);
  } catch (error) {
    if (error instanceof CallError && error.reason !== undefined) {
      const { reason, metadata = {}, failedChecks = [] } = error;
      return { refused: { reason, metadata, failedChecks } };
    }
    throw error;
  }
}

async function reply(client: TestClient, operation: Operation): Promise<Outcome> {
  switch (operation.do) {
    case "set":
      return setReply(await client.call("set", setRequest(operation)));
    case "delete":
      return deleteReply(await client.call("delete", deleteRequest(operation)));
    case "update":
      return updateReply(await client.call("update", updateRequest(operation)));
    case "transact": {
      const checks = operation.checks.map(({ name, condition }) => ({ ...name, condition }));
      const operations = operation.operations.map(operationRequest);
      const { results, revision } = await client.call("transact", { checks, operations });
      return { results: results.map(resultReply), revision };
    }
    case "get": {
      const { entry, revision } = await client.call("get", operation.name);
      return { entry: entry && contentOf(entry), revision };
    }
    case "batchGet": {
      const names = [...operation.names];
      const { results, revision } = await client.call("batchGet", { names });
      return { found: results.map(({ entry }) => entry && contentOf(entry)), revision };
    }
    case "list": {
      const { entries, nextPageToken, revision } = await client.call("list", operation.listing);
      return { entries: entries.map(contentOf), more: nextPageToken !== "", revision };
    }
  }
}

type Of<Do> = Extract<Write, { readonly do: Do }>;

function setRequest({ valueJson, keepTtl = false, ...write }: Of<"set">) {
  return { ...deleteRequest(write), ...ttlOf(write), valueJson, keepTtl };
}

function deleteRequest({ name, condition, returnPrevious = false }: Omit<Write, "do">) {
  return { ...name, ...(condition && { condition }), returnPrevious };
}

function updateRequest({ change, keepTtl = false, ...write }: Of<"update">) {
  return { ...deleteRequest(write), ...ttlOf(write), change, keepTtl };
}

function ttlOf({ hours }: { readonly hours?: number | undefined }) {
  return hours === undefined ? {} : { ttl: { seconds: BigInt(hours) * 3600n } };
}

function operationRequest(write: Write): MessageInitShape<typeof OperationSchema> {
  switch (write.do) {
    case "set":
      return { operation: { case: "set", value: setRequest(write) } };
    case "delete":
      return { operation: { case: "delete", value: deleteRequest(write) } };
    case "update":
      return { operation: { case: "update", value: updateRequest(write) } };
  }
}

function setReply({ created, revision, previous }: SetResponse): WriteReply {
  return { created, revision, previous: previous && contentOf(previous) };
}

function deleteReply({ existed, revision, previous }: DeleteResponse): WriteReply {
  return { existed, revision, previous: previous && contentOf(previous) };
}

function updateReply({ previous, ...response }: UpdateResponse): WriteReply {
  const { valueJson, created, changed, revision } = response;
  return { valueJson, created, changed, revision, previous: previous && contentOf(previous) };
}

function resultReply({ result }: OperationResult): WriteReply {
  switch (result.case) {
    case "set":
      return setReply(result.value);
    case "delete":
      return deleteReply(result.value);
    case "update":
      return updateReply(result.value);
    case undefined:
      throw new Error("a result is empty");
  }
}

/** How many revisions an operation took. */
export function revisionsTaken(outcome: Outcome): number {
  if ("results" in outcome) {
    return outcome.results.reduce((sum, result) => sum + revisionsTaken(result), 0);
  }
  if ("changed" in outcome) {
    return outcome.changed ? 1 : 0;
  }
  return "created" in outcome || ("existed" in outcome && outcome.existed) ? 1 : 0;
}
