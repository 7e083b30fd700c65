import type { PluginStateService } from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { UnaryHandlers } from "../rpc/handler.ts";
import { batchGet } from "./batch-get.ts";
import type { Binding } from "./binding.ts";
import { deleteEntry } from "./delete.ts";
import { deleteRange } from "./delete-range.ts";
import { get } from "./get.ts";
import { getServerInfo } from "./get-server-info.ts";
import { list } from "./list.ts";
import { listScopes } from "./list-scopes.ts";
import { set } from "./set.ts";
import { transact } from "./transact.ts";
import { update } from "./update.ts";

/** The RPCs of one binding: the method's name, and the file that serves it. */
export function pluginStateHandlers(binding: Binding): UnaryHandlers<typeof PluginStateService> {
  return {
    get: (request, call) => get(binding, request, call),
    set: (request, call) => set(binding, request, call),
    delete: (request, call) => deleteEntry(binding, request, call),
    update: (request, call) => update(binding, request, call),
    transact: (request, call) => transact(binding, request, call),
    batchGet: (request, call) => batchGet(binding, request, call),
    deleteRange: (request, call) => deleteRange(binding, request, call),
    listScopes: (request, call) => listScopes(binding, request, call),
    list: (request, call) => list(binding, request, call),
    getServerInfo: () => getServerInfo(binding),
  };
}
