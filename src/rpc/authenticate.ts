import type { Metadata, ServerInterceptingCall, ServerInterceptor } from "@grpc/grpc-js";
import { derivedCalls } from "./derived-call.ts";
import type { OutgoingStatus } from "./outgoing-status.ts";

type InterceptingServerListener = Parameters<ServerInterceptingCall["start"]>[0];

/** Who may call what. */
export interface Authentication {
  /** Whether the `authorization` of a call, undefined if it has none, is good. Asked for each call. */
  readonly accepts: (authorization: string | undefined) => boolean;
  /** What a call gets whose authorization isn't. */
  readonly refusal: () => OutgoingStatus;
  /** Whether a method, by its path `/package.Service/Method`, may be called by anybody. */
  readonly isOpen: (path: string) => boolean;
}

/** Refuses calls as soon as their headers are there: nothing of a request is read, and no handler runs. */
export function authenticate({ accepts, refusal, isOpen }: Authentication): ServerInterceptor {
  const guarding = derivedCalls((base) => ({
    start: {
      value(this: ServerInterceptingCall, listener: InterceptingServerListener) {
        base.start.call(this, guarded(listener, this, accepts, refusal));
      },
    },
  }));
  return (method, call) =>
    // The declared type is the wrapper class, but all that is ever called is this interface.
    isOpen(method.path) ? (call as ServerInterceptingCall) : guarding(call);
}

function guarded(
  listener: InterceptingServerListener,
  call: ServerInterceptingCall,
  accepts: Authentication["accepts"],
  refusal: Authentication["refusal"],
): InterceptingServerListener {
  return {
    onReceiveMetadata(metadata: Metadata) {
      const [given] = metadata.get("authorization");
      metadata.remove("authorization");
      if (accepts(given === undefined ? undefined : String(given))) {
        listener.onReceiveMetadata(metadata);
      } else {
        call.sendStatus(refusal());
      }
    },
    onReceiveMessage: (message: unknown) => listener.onReceiveMessage(message),
    onReceiveHalfClose: () => listener.onReceiveHalfClose(),
    onCancel: () => listener.onCancel(),
  };
}
