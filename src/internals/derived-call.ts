import type { ServerInterceptingCall } from "@grpc/grpc-js";

/**
 * Makes the call objects that an interceptor is given behave otherwise, by making each an instance of
 * a subclass of what it was.
 *
 * Not by giving each a function of its own: V8 allocates a function that is written into a property
 * where it is made with what lives long, and it keeps its call from being collected while young
 * (docs/adr/0010-the-hot-path-makes-nothing-twice.md).
 *
 * @param methodsOf Makes the subclass's methods, once for each class of calls.
 */
export function derivedCalls(
  methodsOf: (base: ServerInterceptingCall) => PropertyDescriptorMap,
): (call: object) => ServerInterceptingCall {
  const derivedFrom = new WeakMap<object, ServerInterceptingCall>();
  return (call) => {
    const base = Object.getPrototypeOf(call) as ServerInterceptingCall;
    let derived = derivedFrom.get(base);
    if (derived === undefined) {
      derived = Object.create(base, methodsOf(base)) as ServerInterceptingCall;
      derivedFrom.set(base, derived);
    }
    // The declared type is the wrapper class, but all that is ever called is this interface.
    return Object.setPrototypeOf(call, derived) as ServerInterceptingCall;
  };
}
