import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  SetRequest,
  SetResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseSet } from "./parse.ts";

/** Writes one entry whole. */
export async function set(
  binding: Binding,
  request: SetRequest,
  call: Call,
): Promise<MessageInitShape<typeof SetResponseSchema>> {
  const write = parseSet(request, binding.maxValueBytes);
  const { existed, revision } = await binding.store().write(write, call.signal);
  return { revision, created: !existed };
}
