import { status } from "@grpc/grpc-js";
import type { OutgoingStatus } from "./outgoing-status.ts";

/** Which bytes a call is refused for. */
export type Held = "request" | "reply";

/** What a call is told when its connection holds too much; `path` is that of its method. */
export type Overloaded = (path: string, held: Held) => OutgoingStatus;

/** What a server without words of its own says. */
export function plainOverloaded(): OutgoingStatus {
  const details = "The connection holds too much already";
  return { code: status.RESOURCE_EXHAUSTED, details, metadata: null };
}

const refusedReplies = new WeakSet<Buffer>();

/** Notes that a reply's client gets a status instead. */
export function noteRefusedReply(reply: Buffer): void {
  refusedReplies.add(reply);
}

/** Whether a reply was handed to a call whose connection had no room for it. */
export function wasRefused(reply: Buffer): boolean {
  return refusedReplies.has(reply);
}
