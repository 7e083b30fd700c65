import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  DeleteRangeRequest,
  DeleteRangeResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import { RequestIdReusedError } from "../state/errors.ts";
import { prefixRange } from "../state/key-order.ts";
import { maxKeyBytes } from "../state/limits.ts";
import type { DeleteRange } from "../state/requests.ts";
import type { Binding } from "./binding.ts";
import { parseNamespace, parseOptionalText, parseScope } from "./parse.ts";
import { parseRequestId } from "./parse-write.ts";

/** Removes the entries of one scope and namespace whose keys have a prefix. */
export async function deleteRange(
  binding: Binding,
  request: DeleteRangeRequest,
  call: Call,
): Promise<MessageInitShape<typeof DeleteRangeResponseSchema>> {
  const range = parseDeleteRange(request);
  const outcome = await binding.store().deleteRange(range, call.signal);
  if (outcome.kind === "request_id_reused") {
    throw new RequestIdReusedError();
  }
  return { deleted: outcome.deleted, revision: outcome.revision };
}

/** @throws {InvalidField} {@link TooLarge} */
function parseDeleteRange(request: DeleteRangeRequest): DeleteRange {
  const scope = parseScope(request.scope);
  const namespace = parseNamespace(request.namespace);
  const prefix = parseOptionalText("prefix", request.prefix, maxKeyBytes);
  // Named, so that it is no other RPC's request.
  const asked = ["delete_range", scope, namespace, prefix];
  const requestId = parseRequestId(request.requestId, asked);
  return { scope, namespace, range: prefixRange(prefix), requestId };
}
