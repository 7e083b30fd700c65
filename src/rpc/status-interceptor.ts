import type { ServerInterceptingCall, ServerInterceptor } from "@grpc/grpc-js";
import { derivedCalls } from "./derived-call.ts";

/** A status on its way to the client, as grpc-js hands it on. */
export type OutgoingStatus = Parameters<ServerInterceptingCall["sendStatus"]>[0];

/**
 * Lets `complete` see every status before it is sent, also those that grpc-js makes by itself
 * (message too large, deadline passed), which pass by the interceptor chain: grpc-js sends them
 * through its own call object, so the interceptor changes that.
 */
export function completeStatuses(
  complete: (status: OutgoingStatus) => OutgoingStatus,
): ServerInterceptor {
  const completing = derivedCalls((base) => ({
    sendStatus: {
      value(this: ServerInterceptingCall, status: OutgoingStatus) {
        base.sendStatus.call(this, complete(status));
      },
    },
  }));
  return (_method, call) => completing(call);
}
