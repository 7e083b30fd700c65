import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteRequest,
  DeleteResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseDelete } from "./parse.ts";

/** Removes one entry. */
export async function deleteEntry(
  binding: Binding,
  request: DeleteRequest,
  call: Call,
): Promise<MessageInitShape<typeof DeleteResponseSchema>> {
  const write = parseDelete(request);
  const { existed, revision } = await binding.store().write(write, call.signal);
  return { existed, revision };
}
