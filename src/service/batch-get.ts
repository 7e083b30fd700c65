import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  BatchGetRequest,
  BatchGetResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { EntryName } from "../state/entry.ts";
import { InvalidField } from "../state/errors.ts";
import { maxBatchGetNames } from "../state/limits.ts";
import type { Binding } from "./binding.ts";
import { parseName, withinEach } from "./parse.ts";
import { entryMessage } from "./respond.ts";

/** Reads several entries in one snapshot. */
export async function batchGet(
  binding: Binding,
  request: BatchGetRequest,
  call: Call,
): Promise<MessageInitShape<typeof BatchGetResponseSchema>> {
  const names = parseBatchGet(request);
  const { entries, revision } = await binding.store().batchGet(names, call.signal);
  const results = entries.map((entry) => (entry ? { entry: entryMessage(entry) } : {}));
  return { results, revision };
}

function parseBatchGet({ names }: BatchGetRequest): EntryName[] {
  if (names.length === 0) {
    throw new InvalidField("names", "are required");
  }
  if (names.length > maxBatchGetNames) {
    throw new InvalidField("names", `are ${names.length}, of at most ${maxBatchGetNames}`);
  }
  return withinEach("names", names, parseName);
}
