import { type Metadata, ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import type { OutgoingStatus } from "./outgoing-status.ts";

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
  return ({ path }, call) => {
    if (isOpen(path)) {
      // The declared type is the wrapper class, but all that is ever called is this interface.
      return call as ServerInterceptingCall;
    }
    const onReceiveMetadata = (metadata: Metadata, next: (metadata: Metadata) => void) => {
      const [given] = metadata.get("authorization");
      metadata.remove("authorization");
      if (accepts(given === undefined ? undefined : String(given))) {
        next(metadata);
      } else {
        call.sendStatus(refusal());
      }
    };
    return new ServerInterceptingCall(call, { start: (next) => next({ onReceiveMetadata }) });
  };
}
