import type { ServerInterceptingCall, ServerInterceptor } from "@grpc/grpc-js";

/** A status on its way to the client, as grpc-js hands it on. */
export type OutgoingStatus = Parameters<ServerInterceptingCall["sendStatus"]>[0];

/**
 * Lets `complete` see every status before it is sent, also those that grpc-js makes by itself
 * (message too large, deadline passed), which pass by the interceptor chain: grpc-js sends them
 * through its own call object, so the interceptor makes that a subclass of what it was.
 *
 * Not by giving each call a function of its own: a closure kept in a property that the object wasn't
 * made with links each call to the next for V8, so that none is collected while young (see
 * stream-tables.ts, and docs/performance.md).
 */
export function completeStatuses(
  complete: (status: OutgoingStatus) => OutgoingStatus,
): ServerInterceptor {
  const completing = new WeakMap<object, object>();
  return (_method, call) => {
    const base = Object.getPrototypeOf(call) as ServerInterceptingCall;
    let derived = completing.get(base);
    if (derived === undefined) {
      derived = Object.create(base, {
        sendStatus: {
          value(this: ServerInterceptingCall, status: OutgoingStatus) {
            base.sendStatus.call(this, complete(status));
          },
        },
      }) as object;
      completing.set(base, derived);
    }
    // The declared type is the wrapper class, but all that is ever called is this interface.
    return Object.setPrototypeOf(call, derived) as ServerInterceptingCall;
  };
}
