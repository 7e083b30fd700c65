// @ts-check
// What a connection is about to send: gathered, so that one write serves all calls of a turn.

import { FRAME_HEADER_BYTES, writeFrameHeader } from "./frames.js";

const BLOCK_BYTES = 65_536;

/** Frames waiting for `flush`. */
export class Output {
  #socket;
  #block = Buffer.alloc(0);
  #start = 0;
  #end = 0;

  /** @param {import("node:net").Socket} socket */
  constructor(socket) {
    this.#socket = socket;
  }

  /**
   * Adds a frame with the bytes of `source` from `from` to `to`.
   * @param {number} type
   * @param {number} flags
   * @param {number} streamId
   * @param {Buffer} source
   * @param {number} from
   * @param {number} to
   */
  addFrame(type, flags, streamId, source, from, to) {
    const at = this.#reserve(FRAME_HEADER_BYTES + to - from);
    writeFrameHeader(this.#block, at, to - from, type, flags, streamId);
    source.copy(this.#block, at + FRAME_HEADER_BYTES, from, to);
  }

  /**
   * Adds a frame that is encoded already.
   * @param {Buffer} encoded
   */
  add(encoded) {
    const at = this.#reserve(encoded.length);
    encoded.copy(this.#block, at);
  }

  /** Writes what has gathered. */
  flush() {
    if (this.#end === this.#start) return;
    this.#socket.write(this.#block.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  /**
   * Makes room. A block's bytes are never used twice: the socket may still hold them.
   * @param {number} bytes
   */
  #reserve(bytes) {
    if (this.#block.length - this.#end < bytes) {
      this.flush();
      this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      this.#start = 0;
      this.#end = 0;
    }
    const at = this.#end;
    this.#end += bytes;
    return at;
  }
}
