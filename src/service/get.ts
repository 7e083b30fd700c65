import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  GetRequest,
  GetResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseName } from "./parse.ts";
import { entryMessage } from "./respond.ts";

/** Reads one entry. */
export async function get(
  binding: Binding,
  request: GetRequest,
  call: Call,
): Promise<MessageInitShape<typeof GetResponseSchema>> {
  const name = parseName(request);
  const { entry, revision } = await binding.store().get(name, call.signal);
  return entry === undefined ? { revision } : { entry: entryMessage(entry), revision };
}
