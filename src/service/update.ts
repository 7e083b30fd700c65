import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  UpdateRequest,
  UpdateResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseUpdate } from "./parse-write.ts";
import { onlyResult, updateResponse } from "./respond-write.ts";

/** Changes one entry's value where it is kept. */
export async function update(
  binding: Binding,
  request: UpdateRequest,
  call: Call,
): Promise<MessageInitShape<typeof UpdateResponseSchema>> {
  const write = parseUpdate(request, binding.bounds.maxValueBytes);
  const outcome = await binding.store().write(write, call.signal);
  return updateResponse(onlyResult(outcome, binding.bounds));
}
