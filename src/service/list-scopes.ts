import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ListScopesRequest,
  ListScopesResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";

export async function listScopes(
  _binding: Binding,
  _request: ListScopesRequest,
  _call: Call,
): Promise<MessageInitShape<typeof ListScopesResponseSchema>> {
  throw new Error("being written");
}
