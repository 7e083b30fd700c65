// @ts-check
// One HTTP/2 connection that sends unary gRPC calls over a plain socket and reads only what it must:
// frame headers, message lengths and trailers. What that saves stands in README.md.

import { connect } from "node:net";
import { FrameReader } from "./frame-reader.js";
import {
  CANCEL,
  DEFAULT_WINDOW_BYTES,
  frame as encodeFrame,
  Flag,
  FrameType,
  MAX_FRAME_BYTES,
  numberFrame,
  OPENING,
  SETTINGS_ACK,
  Setting,
} from "./frames.js";
import { encodeRequestHeaders } from "./hpack.js";
import { Output } from "./output.js";
import { Stream } from "./stream.js";

/** @import { Frame } from "./frame-reader.js" */
/** @import { Call } from "./stream.js" */

/** The socket reads into one buffer of this size, again and again. */
const INPUT_BYTES = 262_144;

/** How much the server may have sent before it gets its window back: it never waits for us. */
const REFILL_BYTES = 2 ** 30;

/** How long a server may take for its first SETTINGS. */
const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Whoever runs calls on a connection.
 * @typedef {object} Listener
 * @property {(stream: Stream, outcome: string, nowMs: number) => void} onReply a call ended
 * @property {(connection: Connection, nowMs: number) => void} onTurn all that had arrived was handled
 */

/** Sends calls and tells a listener how they ended. Made by `Connection.open`. */
export class Connection {
  /** @type {Listener | undefined} */
  listener;

  /** Why the connection is of no more use. @type {string | undefined} */
  failure;

  /** How many calls the server accepts at a time. */
  maxConcurrentCalls = Number.POSITIVE_INFINITY;

  #socket;
  #output;
  #reader = new FrameReader((frame) => this.#onFrame(frame));
  #authority;
  #metadata;
  /** By path. @type {Map<string, Buffer>} */
  #headerBlocks = new Map();

  /** The calls in flight. @type {Map<number, Stream>} */
  #streams = new Map();
  #nextStreamId = 1;
  /** When what is being read arrived. */
  #nowMs = 0;

  /** Streams that wait for a window, in order. @type {Set<Stream>} */
  #waiting = new Set();
  #windowBytes = DEFAULT_WINDOW_BYTES;
  #initialWindowBytes = DEFAULT_WINDOW_BYTES;
  #unrefilledBytes = 0;

  /** Ends the wait in `open`. @type {(failure: string | undefined) => void} */
  #opened = () => {};

  /**
   * Connects to `host:port` or `unix:/path` and waits for the server's SETTINGS.
   * @param {string} address
   * @param {Record<string, string>} [metadata] sent with every call; lower-case names
   * @returns {Promise<Connection>}
   */
  static async open(address, metadata = {}) {
    const connection = new Connection(address, metadata);
    const failure = await new Promise((resolve) => {
      const timer = setTimeout(() => resolve("TIMEOUT"), CONNECT_TIMEOUT_MS);
      connection.#opened = (reason) => {
        clearTimeout(timer);
        resolve(reason);
      };
    });
    if (failure === undefined) return connection;
    connection.close();
    throw new Error(`can't connect to ${address}: ${failure}`);
  }

  /**
   * @param {string} address
   * @param {Record<string, string>} metadata
   */
  constructor(address, metadata) {
    this.#authority = address.startsWith("unix:") ? "localhost" : address;
    this.#metadata = metadata;
    this.#socket = connect({ ...socketTarget(address), noDelay: true, onread: this.#onread() });
    this.#socket.on("error", (error) => this.fail(`CONNECTION_LOST ${codeOf(error)}`));
    this.#socket.on("close", () => this.fail("CONNECTION_LOST"));
    this.#socket.write(OPENING);
    this.#output = new Output(this.#socket);
  }

  get inFlight() {
    return this.#streams.size;
  }

  /**
   * Starts a call. It leaves with the next `flush`.
   * @param {Call} call
   * @param {number} startMs from when its latency counts
   * @param {boolean} keepsReply
   */
  send(call, startMs, keepsReply) {
    const id = this.#nextStreamId;
    this.#nextStreamId += 2;
    const stream = new Stream(id, call, startMs, this.#initialWindowBytes, keepsReply);
    this.#streams.set(id, stream);
    const block = this.#headerBlock(call.path);
    this.#output.addFrame(FrameType.headers, Flag.endHeaders, id, block, 0, block.length);
    if (!this.#sendBody(stream)) this.#waiting.add(stream);
  }

  /** Sends what has gathered. */
  flush() {
    this.#output.flush();
  }

  /**
   * Ends the connection; every call in flight ends with the reason. Later reasons are ignored.
   * @param {string} reason
   */
  fail(reason) {
    if (this.failure !== undefined) return;
    this.failure = reason;
    this.#opened(reason);
    this.#socket.destroy();
    const nowMs = performance.now();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#waiting.clear();
    for (const stream of streams) this.listener?.onReply(stream, reason, nowMs);
    this.listener?.onTurn(this, nowMs);
  }

  /** Closes the connection without a word. */
  close() {
    this.listener = undefined;
    this.fail("CLOSED");
  }

  // Sending

  /** @param {string} path */
  #headerBlock(path) {
    let block = this.#headerBlocks.get(path);
    if (block === undefined) {
      block = encodeRequestHeaders(path, this.#authority, this.#metadata);
      this.#headerBlocks.set(path, block);
    }
    return block;
  }

  /**
   * Sends as much of the body as the windows allow, and says whether that was all.
   * @param {Stream} stream
   */
  #sendBody(stream) {
    const { body } = stream.call;
    while (stream.sentBytes < body.length) {
      const from = stream.sentBytes;
      const leftBytes = body.length - from;
      const bytes = Math.min(leftBytes, MAX_FRAME_BYTES, stream.windowBytes, this.#windowBytes);
      if (bytes <= 0) return false;
      const flags = bytes === leftBytes ? Flag.endStream : 0;
      this.#output.addFrame(FrameType.data, flags, stream.id, body, from, from + bytes);
      stream.sentBytes += bytes;
      stream.windowBytes -= bytes;
      this.#windowBytes -= bytes;
    }
    return true;
  }

  /** Goes on with the bodies that waited, after a window has grown. */
  #sendWaiting() {
    for (const stream of this.#waiting) {
      if (this.#windowBytes <= 0) return;
      if (this.#sendBody(stream)) this.#waiting.delete(stream);
    }
  }

  // Receiving

  /** Reads into one buffer instead of a new one per read. */
  #onread() {
    return {
      buffer: Buffer.allocUnsafeSlow(INPUT_BYTES),
      /**
       * @param {number} length
       * @param {Uint8Array} buffer the one above
       */
      callback: (length, buffer) => {
        this.#onBytes(Buffer.from(buffer.buffer, buffer.byteOffset, length));
        return true;
      },
    };
  }

  /** @param {Buffer} bytes */
  #onBytes(bytes) {
    this.#nowMs = performance.now();
    try {
      this.#reader.read(bytes);
    } catch (error) {
      this.fail(`PROTOCOL_ERROR ${error instanceof Error ? error.message : error}`);
    }
    if (this.failure !== undefined) return;
    this.listener?.onTurn(this, this.#nowMs);
    this.#output.flush();
  }

  /** @param {Frame} frame */
  #onFrame(frame) {
    const { type, flags, streamId, bytes, start, end } = frame;
    switch (type) {
      case FrameType.data:
        return this.#onData(frame);
      case FrameType.headers:
        return this.#onHeaders(frame);
      case FrameType.windowUpdate:
        return this.#onWindowUpdate(streamId, bytes.readUInt32BE(start));
      case FrameType.settings:
        return this.#onSettings(flags, bytes.subarray(start, end));
      case FrameType.ping:
        return this.#onPing(flags, bytes.subarray(start, end));
      case FrameType.rstStream:
        return this.#end(streamId, `RST_STREAM_${bytes.readUInt32BE(start)}`);
      case FrameType.goaway:
        return this.fail(`GOAWAY_${bytes.readUInt32BE(start + 4)}`);
      case FrameType.priority:
        return;
      default:
        throw new Error(`a frame of type ${type}`);
    }
  }

  /** @param {Frame} frame */
  #onData({ flags, streamId, bytes, start, end }) {
    if (flags & Flag.padded) throw new Error("a padded DATA frame");
    this.#refill(end - start);
    this.#streams.get(streamId)?.receive(bytes, start, end);
    if (flags & Flag.endStream) this.#end(streamId, "NO_TRAILERS");
  }

  /**
   * Only the header block that ends a stream says how the call went.
   * @param {Frame} frame
   */
  #onHeaders({ flags, streamId, bytes, start, end }) {
    if (flags & (Flag.padded | Flag.priority)) throw new Error("a padded HEADERS frame");
    if (!(flags & Flag.endHeaders)) throw new Error("a header block in several frames");
    if (!(flags & Flag.endStream)) return;
    const outcome = this.#streams.get(streamId)?.outcome(bytes, start, end);
    if (outcome !== undefined) this.#end(streamId, outcome);
  }

  /**
   * @param {number} streamId
   * @param {string} outcome
   */
  #end(streamId, outcome) {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    this.#streams.delete(streamId);
    if (!stream.isSent()) {
      this.#waiting.delete(stream);
      this.#output.add(numberFrame(FrameType.rstStream, streamId, CANCEL));
    }
    this.listener?.onReply(stream, outcome, this.#nowMs);
  }

  /**
   * @param {number} streamId
   * @param {number} bytes
   */
  #onWindowUpdate(streamId, bytes) {
    const stream = this.#streams.get(streamId);
    if (streamId === 0) this.#windowBytes += bytes;
    else if (stream !== undefined) stream.windowBytes += bytes;
    if (this.#waiting.size > 0) this.#sendWaiting();
  }

  /**
   * @param {number} flags
   * @param {Buffer} payload
   */
  #onSettings(flags, payload) {
    if (flags & Flag.ack) return;
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      const identifier = payload.readUInt16BE(at);
      if (identifier === Setting.maxConcurrentStreams) this.maxConcurrentCalls = value;
      if (identifier === Setting.initialWindowSize) this.#setInitialWindow(value);
    }
    this.#output.add(SETTINGS_ACK);
    this.#sendWaiting();
    this.#opened(undefined);
  }

  /** @param {number} bytes */
  #setInitialWindow(bytes) {
    for (const stream of this.#streams.values()) {
      stream.windowBytes += bytes - this.#initialWindowBytes;
    }
    this.#initialWindowBytes = bytes;
  }

  /**
   * @param {number} flags
   * @param {Buffer} payload
   */
  #onPing(flags, payload) {
    if (flags & Flag.ack) return;
    this.#output.add(encodeFrame(FrameType.ping, Flag.ack, 0, payload));
  }

  /**
   * Gives the connection's window back long before it is used up. A stream's own needs none: it is
   * larger than any reply.
   * @param {number} bytes
   */
  #refill(bytes) {
    this.#unrefilledBytes += bytes;
    if (this.#unrefilledBytes < REFILL_BYTES) return;
    this.#output.add(numberFrame(FrameType.windowUpdate, 0, this.#unrefilledBytes));
    this.#unrefilledBytes = 0;
  }
}

/** @param {string} address */
function socketTarget(address) {
  if (address.startsWith("unix:")) return { path: address.slice("unix:".length) };
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

/** @param {Error} error */
function codeOf(error) {
  return "code" in error ? String(error.code) : error.message;
}
