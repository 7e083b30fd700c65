import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  SetRequest,
  SetResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseSet } from "./parse-write.ts";
import { onlyResult, setResponse } from "./respond-write.ts";

/** Writes one entry whole. */
export async function set(
  binding: Binding,
  request: SetRequest,
  call: Call,
): Promise<MessageInitShape<typeof SetResponseSchema>> {
  const write = parseSet(request, binding.bounds.maxValueBytes);
  const outcome = await binding.store().write(write, call.signal);
  return setResponse(onlyResult(outcome, binding.bounds));
}
