// @ts-check
// Cuts what a socket delivers into HTTP/2 frames.

import { FRAME_HEADER_BYTES, MAX_FRAME_BYTES } from "./frames.js";

/**
 * A frame where it lies in the read buffer. The same object serves for every frame.
 * @typedef {object} Frame
 * @property {number} type
 * @property {number} flags
 * @property {number} streamId
 * @property {Buffer} bytes
 * @property {number} start of the payload within bytes
 * @property {number} end of the payload within bytes
 */

const EMPTY = Buffer.alloc(0);

/** Keeps the beginning of a frame until its rest arrives. */
export class FrameReader {
  #onFrame;
  #rest = EMPTY;
  /** @type {Frame} */
  #frame = { type: 0, flags: 0, streamId: 0, bytes: EMPTY, start: 0, end: 0 };

  /** @param {(frame: Frame) => void} onFrame the frame's bytes are gone after it returns */
  constructor(onFrame) {
    this.#onFrame = onFrame;
  }

  /**
   * Hands over every frame that is whole. Throws on one larger than we allowed.
   * @param {Buffer} chunk may be overwritten after this returns
   */
  read(chunk) {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (bytes.length - at >= FRAME_HEADER_BYTES) {
      const length = bytes.readUIntBE(at, 3);
      if (length > MAX_FRAME_BYTES) throw new Error(`a frame of ${length} bytes`);
      const start = at + FRAME_HEADER_BYTES;
      const end = start + length;
      if (end > bytes.length) break;
      this.#hand(bytes, at, start, end);
      at = end;
    }
    this.#rest = at === bytes.length ? EMPTY : Buffer.from(bytes.subarray(at));
  }

  /**
   * @param {Buffer} bytes
   * @param {number} at
   * @param {number} start
   * @param {number} end
   */
  #hand(bytes, at, start, end) {
    const frame = this.#frame;
    frame.type = bytes.readUInt8(at + 3);
    frame.flags = bytes.readUInt8(at + 4);
    frame.streamId = bytes.readUInt32BE(at + 5);
    frame.bytes = bytes;
    frame.start = start;
    frame.end = end;
    this.#onFrame(frame);
  }
}
