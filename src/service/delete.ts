import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteRequest,
  DeleteResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseDelete } from "./parse-write.ts";
import { deleteResponse, onlyResult } from "./respond-write.ts";

/** Removes one entry. */
export async function deleteEntry(
  binding: Binding,
  request: DeleteRequest,
  call: Call,
): Promise<MessageInitShape<typeof DeleteResponseSchema>> {
  const write = parseDelete(request);
  const outcome = await binding.store().write(write, call.signal);
  return deleteResponse(onlyResult(outcome, binding.bounds));
}
