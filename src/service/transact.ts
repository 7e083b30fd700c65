import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  TransactRequest,
  TransactResponseSchema,
} from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Call } from "../rpc/handler.ts";
import type { Binding } from "./binding.ts";
import { parseTransact } from "./parse-write.ts";
import { done, transactResponse } from "./respond-write.ts";

/** Does several operations or none. */
export async function transact(
  binding: Binding,
  request: TransactRequest,
  call: Call,
): Promise<MessageInitShape<typeof TransactResponseSchema>> {
  const write = parseTransact(request, binding.bounds.maxValueBytes);
  const outcome = await binding.store().write(write, call.signal);
  return transactResponse(write, done(outcome, binding.bounds));
}
