import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteRangeRequest,
  DeleteRangeResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";

export async function deleteRange(
  _binding: Binding,
  _request: DeleteRangeRequest,
  _call: Call,
): Promise<MessageInitShape<typeof DeleteRangeResponseSchema>> {
  throw new Error("being written");
}
