import { PluginStateService } from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { Overloaded as OverloadedStatus } from "../rpc/overloaded.ts";
import { OutcomeUnknown, Overloaded } from "../state/errors.ts";
import { statusOf } from "./status.ts";

/** What changes state; when the reply of such a call can't be sent, it has been done. */
const writes: ReadonlySet<string> = new Set(
  (["set", "delete", "update", "transact", "deleteRange"] as const).map(
    (name) => `/${PluginStateService.typeName}/${PluginStateService.method[name].name}`,
  ),
);

/** What a call is told when its connection's requests, or the replies that wait for it, are too many bytes. */
export const overloaded: OverloadedStatus = (path, held) => {
  if (held === "request") {
    return statusOf(new Overloaded("the connection has too many bytes of requests open"));
  }
  const unread = "too many replies wait on the connection to be read";
  return statusOf(
    writes.has(path)
      ? new OutcomeUnknown(undefined, `${unread}: the write was done, and its answer is lost`)
      : new Overloaded(unread),
  );
};
