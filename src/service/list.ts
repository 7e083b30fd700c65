import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ListRequest,
  ListResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { writePageToken } from "./page-token.ts";
import { parseList } from "./parse-list.ts";
import { entryMessage } from "./respond.ts";

/** Reads a page of entries. */
export async function list(
  binding: Binding,
  request: ListRequest,
  call: Call,
): Promise<MessageInitShape<typeof ListResponseSchema>> {
  const page = parseList(request, binding.plugin().id);
  const { entries, more, revision } = await binding.store().list(page.list, call.signal);
  const last = more ? entries.at(-1) : undefined;
  const nextPageToken = last === undefined ? "" : writePageToken([last.key], page.boundTo);
  return { entries: entries.map(entryMessage), nextPageToken, revision };
}
