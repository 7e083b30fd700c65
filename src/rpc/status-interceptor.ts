import type { ServerInterceptingCall, ServerInterceptor } from "@grpc/grpc-js";

/** A status on its way to the client, as grpc-js hands it on. */
export type OutgoingStatus = Parameters<ServerInterceptingCall["sendStatus"]>[0];

/**
 * Lets `complete` see every status before it is sent, also those that grpc-js makes by itself
 * (message too large, deadline passed), which pass by the interceptor chain: grpc-js sends them
 * through its own call object, so the interceptor puts itself there.
 */
export function completeStatuses(
  complete: (status: OutgoingStatus) => OutgoingStatus,
): ServerInterceptor {
  return (_method, call) => {
    const send = call.sendStatus.bind(call);
    call.sendStatus = (status) => send(complete(status));
    // The declared type is the wrapper class, but all that is ever called is this interface.
    return call as ServerInterceptingCall;
  };
}
