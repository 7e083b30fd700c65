// @ts-check
// HPACK (RFC 7541) without a dynamic table: requests as literals, replies down to their status.

import { decodeHuffman } from "./huffman.js";

/** Where the static table has the names that we send by index. */
const STATIC_NAMES = new Map([
  [":authority", 1],
  [":path", 4],
  ["content-type", 31],
  ["user-agent", 58],
]);

const METHOD_POST = 0x83;
const SCHEME_HTTP = 0x86;

/** The static table's last entry; an index beyond it means a dynamic table, which we refused. */
const STATIC_ENTRIES = 61;

/** The `:status` values at the static table's indices 8 to 14. */
const STATIC_STATUS = [200, 204, 206, 304, 400, 404, 500];
const STATIC_STATUS_INDEX = 8;

/**
 * Encodes a gRPC request's header block. It depends on nothing sent before, so it can be reused for
 * every call.
 * @param {string} path such as `/pluginstate.v1.PluginStateService/Get`
 * @param {string} authority
 * @param {Record<string, string>} metadata lower-case names
 */
export function encodeRequestHeaders(path, authority, metadata) {
  return Buffer.concat([
    Buffer.from([METHOD_POST, SCHEME_HTTP]),
    literal(":path", path),
    literal(":authority", authority),
    literal("te", "trailers"),
    literal("content-type", "application/grpc"),
    literal("user-agent", "plugin-state-bench"),
    ...Object.entries(metadata).map(([name, value]) => literal(name, value)),
  ]);
}

/**
 * A literal that enters no table, uncompressed.
 * @param {string} name
 * @param {string} value
 */
function literal(name, value) {
  const index = STATIC_NAMES.get(name) ?? 0;
  const encodedName = index === 0 ? encodeString(name) : Buffer.alloc(0);
  return Buffer.concat([encodeInteger(index, 4), encodedName, encodeString(value)]);
}

/** @param {string} text */
function encodeString(text) {
  const bytes = Buffer.from(text, "latin1");
  return Buffer.concat([encodeInteger(bytes.length, 7), bytes]);
}

/**
 * @param {number} value
 * @param {number} prefixBits
 */
function encodeInteger(value, prefixBits) {
  const limit = 2 ** prefixBits - 1;
  if (value < limit) return Buffer.from([value]);
  const bytes = [limit];
  let rest = value - limit;
  for (; rest >= 128; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/**
 * What a reply's last header block says.
 * @typedef {object} ReplyStatus
 * @property {number | undefined} httpStatus present when trailers and headers are one
 * @property {number | undefined} grpcStatus
 * @property {string} grpcMessage percent-encoded, as it came
 */

/**
 * Reads the status from a reply's last header block. Throws on a block that needs a dynamic table or
 * has a grpc-status that is no number.
 * @param {Buffer} block
 * @returns {ReplyStatus}
 */
export function decodeReplyStatus(block) {
  /** @type {ReplyStatus} */
  const reply = { httpStatus: undefined, grpcStatus: undefined, grpcMessage: "" };
  const reader = new BlockReader(block);
  while (reader.hasMore()) {
    const { index, name, value } = reader.readField();
    const status = index - STATIC_STATUS_INDEX;
    if (status in STATIC_STATUS) reply.httpStatus = value ? Number(value) : STATIC_STATUS[status];
    if (name === "grpc-status") reply.grpcStatus = parseStatus(value);
    if (name === "grpc-message") reply.grpcMessage = value;
  }
  return reply;
}

/** @param {string} text */
function parseStatus(text) {
  if (!/^\d{1,3}$/.test(text)) throw new Error(`grpc-status is ${JSON.stringify(text)}`);
  return Number(text);
}

/** Reads a header block field by field. */
class BlockReader {
  /** @param {Buffer} block */
  constructor(block) {
    this.block = block;
    this.at = 0;
  }

  hasMore() {
    return this.at < this.block.length;
  }

  /**
   * The next field: a name of the static table comes as its index, without text; a whole field of the
   * static table has no value either; an empty field stands for a table size update.
   */
  readField() {
    const first = this.block.readUInt8(this.at);
    if (first & 0x80) return { index: this.#readIndex(7), name: "", value: "" };
    if ((first & 0xe0) === 0x20) {
      if (this.#readInteger(5) !== 0) throw new Error("the server grew its header table");
      return { index: 0, name: "", value: "" };
    }
    const index = this.#readIndex(first & 0x40 ? 6 : 4);
    const name = index === 0 ? this.#readString() : "";
    return { index, name, value: this.#readString() };
  }

  /** @param {number} prefixBits */
  #readIndex(prefixBits) {
    const index = this.#readInteger(prefixBits);
    if (index > STATIC_ENTRIES) throw new Error("the server used a dynamic header table");
    return index;
  }

  #readString() {
    const isHuffman = (this.block.readUInt8(this.at) & 0x80) !== 0;
    const length = this.#readInteger(7);
    if (length > this.block.length - this.at) throw new Error("a header string beyond its block");
    const bytes = this.block.subarray(this.at, this.at + length);
    this.at += length;
    return isHuffman ? decodeHuffman(bytes) : bytes.toString("latin1");
  }

  /** @param {number} prefixBits */
  #readInteger(prefixBits) {
    const limit = 2 ** prefixBits - 1;
    let value = this.block.readUInt8(this.at++) & limit;
    if (value < limit) return value;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.block.readUInt8(this.at++);
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }
}
