// @ts-check
// One call on its way: what is sent of it, and what came back.

import { decodeReplyStatus } from "./hpack.js";
import { OK, statusName } from "./status.js";

/** Bytes in front of a gRPC message: a compression flag and the length. */
export const MESSAGE_PREFIX_BYTES = 5;

/**
 * A call that can be sent any number of times.
 * @typedef {object} Call
 * @property {string} path such as `/pluginstate.v1.PluginStateService/Get`
 * @property {Buffer} body the gRPC message with its prefix, see `messageBody`
 * @property {(reply: Buffer) => boolean} [isRight] judges the replies that a run samples
 */

/**
 * Puts the prefix before an encoded message.
 * @param {Uint8Array} message
 */
export function messageBody(message) {
  const body = Buffer.allocUnsafe(MESSAGE_PREFIX_BYTES + message.length);
  body.writeUInt8(0, 0);
  body.writeUInt32BE(message.length, 1);
  body.set(message, MESSAGE_PREFIX_BYTES);
  return body;
}

/** The header block of successful trailers, remembered so that the next ones needn't be decoded. */
let okTrailers = Buffer.alloc(0);

/** A call in flight. */
export class Stream {
  /**
   * @param {number} id
   * @param {Call} call
   * @param {number} startMs when the call began, or was due
   * @param {number} windowBytes how much of the body the server accepts at first
   * @param {boolean} keepsReply whether the reply's bytes are wanted
   */
  constructor(id, call, startMs, windowBytes, keepsReply) {
    this.id = id;
    this.call = call;
    this.startMs = startMs;
    this.windowBytes = windowBytes;
    this.sentBytes = 0;
    this.receivedBytes = 0;
    this.declaredBytes = 0;
    /** The grpc-message of a failed call, percent-encoded. */
    this.detail = "";
    /** @type {Buffer[] | undefined} */
    this.parts = keepsReply ? [] : undefined;
  }

  isSent() {
    return this.sentBytes === this.call.body.length;
  }

  /**
   * Takes the bytes of a DATA frame; they are gone after this returns.
   * @param {Buffer} bytes the read buffer
   * @param {number} start
   * @param {number} end
   */
  receive(bytes, start, end) {
    if (this.parts !== undefined) this.parts.push(Buffer.from(bytes.subarray(start, end)));
    for (let at = start; at < end && this.receivedBytes + at - start < MESSAGE_PREFIX_BYTES; at++) {
      // The compression flag is the length's highest byte here: a compressed reply is a wrong length.
      this.declaredBytes = this.declaredBytes * 256 + bytes.readUInt8(at);
    }
    this.receivedBytes += end - start;
  }

  /**
   * What the call ended with, from the header block that ended it: OK only if the status says so and
   * exactly one whole message came.
   * @param {Buffer} bytes the read buffer
   * @param {number} start
   * @param {number} end
   */
  outcome(bytes, start, end) {
    if (!isOkTrailers(bytes, start, end)) {
      const failure = this.#failure(bytes.subarray(start, end));
      if (failure !== undefined) return failure;
    }
    if (this.receivedBytes === 0) return "NO_MESSAGE";
    const isWhole = this.receivedBytes === MESSAGE_PREFIX_BYTES + this.declaredBytes;
    return isWhole ? OK : "BROKEN_MESSAGE";
  }

  /**
   * Undefined if the block says that all is well.
   * @param {Buffer} block
   */
  #failure(block) {
    const { grpcStatus, grpcMessage, httpStatus } = decodeReplyStatus(block);
    if (grpcStatus === undefined) return `HTTP_${httpStatus ?? "WITHOUT_GRPC_STATUS"}`;
    this.detail = grpcMessage;
    if (grpcStatus !== 0) return statusName(grpcStatus);
    okTrailers = Buffer.from(block);
    return undefined;
  }

  /** The reply's message without its prefix. Only for a stream that keeps its reply. */
  message() {
    return Buffer.concat(this.parts ?? []).subarray(MESSAGE_PREFIX_BYTES);
  }
}

/**
 * Whether these are the very bytes that were decoded to status 0 before. Without a header table the
 * same bytes mean the same fields. A loop, because it is faster than Buffer.compare for 30 bytes.
 * @param {Buffer} bytes
 * @param {number} start
 * @param {number} end
 */
function isOkTrailers(bytes, start, end) {
  const length = end - start;
  if (length !== okTrailers.length) return false;
  for (let index = 0; index < length; index++) {
    if (bytes[start + index] !== okTrailers[index]) return false;
  }
  return length > 0;
}
