import type { ServerHttp2Stream } from "node:http2";
import type { ServerInterceptingCall } from "@grpc/grpc-js";
import { ReplyEnd } from "./reply-end.ts";
import { ReplyHeaders } from "./reply-headers.ts";

/** As much of grpc-js's call as is used here. A test notices if it changes. */
interface BaseCall {
  readonly stream: ServerHttp2Stream;
  readonly handler: { readonly deserialize: (message: Buffer) => unknown };
  readonly callEventTracker: unknown;
  readonly shouldSendMetrics: boolean;
  readonly maxSendMessageSize: number;
  metadataSent: boolean;
  wantTrailers: boolean;
  serializeMessage(message: Buffer): Buffer;
  checkCancelled(): boolean;
  maybeSendMetadata(): void;
  maybePushNextMessage(): void;
  decompressAndMaybePush(message: QueuedMessage): Promise<void> | void;
}

interface QueuedMessage {
  type: "COMPRESSED" | "READABLE";
  readonly compressedMessage: Buffer;
  parsedMessage: unknown;
}

/** Before a message stand a flag and its length. */
const prefixBytes = 5;

/** What grpc-js sends before a reply when a handler wants no metadata of its own sent. */
const usualHeaders = new ReplyHeaders({
  ":status": 200,
  "content-type": "application/grpc+proto",
  "grpc-accept-encoding": "identity,deflate,gzip",
  "grpc-encoding": "identity",
});

/** What it sends after one when all went well. */
const usualEnd = new ReplyEnd({ "grpc-status": 0, "grpc-message": "OK" });

/** A call that may be answered the short way. */
export interface ShortCall {
  /** Sends a reply and OK. False, and nothing is done, if that has to go another way. */
  answerAtOnce(reply: Buffer): boolean;
}

/**
 * The methods of a subclass of grpc-js's call that do what is usual in less time: headers that are the
 * same for each reply, replies with all that belongs to them, and messages that aren't compressed, which
 * needn't be waited for. Those of {@link ShortCall} are new.
 */
export function shortWays(call: ServerInterceptingCall): PropertyDescriptorMap {
  // The declared type is the wrapper class; what it is stands above.
  const base = call as unknown as BaseCall;
  const methods: PropertyDescriptorMap & ThisType<BaseCall> = {
    maybeSendMetadata: {
      value() {
        if (!this.metadataSent && !this.checkCancelled()) {
          this.metadataSent = true;
          usualHeaders.send(this.stream);
        }
      },
    },
    answerAtOnce: {
      value(reply: Buffer): boolean {
        const max = this.maxSendMessageSize;
        const isTooLarge = max !== -1 && reply.length > max;
        const isBegun = this.metadataSent || this.wantTrailers;
        const isWatched = this.callEventTracker !== null || this.shouldSendMetrics;
        if (isTooLarge || isBegun || isWatched || this.checkCancelled()) {
          return false;
        }
        const message = this.serializeMessage(reply);
        this.maybeSendMetadata();
        this.wantTrailers = true;
        // Headers that can't be sent end it.
        if (!this.stream.destroyed) {
          usualEnd.send(this.stream, message);
        }
        return true;
      },
    },
    decompressAndMaybePush: {
      value(message: QueuedMessage) {
        if (message.compressedMessage[0] === 1) {
          return base.decompressAndMaybePush.call(this, message);
        }
        try {
          const bytes = message.compressedMessage.subarray(prefixBytes);
          message.parsedMessage = this.handler.deserialize(bytes);
        } catch {
          // There it fails again, and grpc-js answers the call.
          return base.decompressAndMaybePush.call(this, message);
        }
        message.type = "READABLE";
        this.maybePushNextMessage();
      },
    },
  };
  return methods;
}
