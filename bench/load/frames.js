// @ts-check
// HTTP/2 frames (RFC 9113): the few that a gRPC client sends, byte for byte.

/** Bytes in front of every frame's payload. */
export const FRAME_HEADER_BYTES = 9;

/** The largest payload a frame has here, both ways: the protocol's default, which every peer accepts. */
export const MAX_FRAME_BYTES = 16_384;

/** The largest flow-control window there is. */
export const MAX_WINDOW_BYTES = 2 ** 31 - 1;

/** The window every stream and connection begins with until somebody says otherwise. */
export const DEFAULT_WINDOW_BYTES = 65_535;

/** Frame types. */
export const FrameType = /** @type {const} */ ({
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
});

/** Frame flags; `ack` is for SETTINGS and PING. */
export const Flag = /** @type {const} */ ({
  ack: 0x01,
  endStream: 0x01,
  endHeaders: 0x04,
  padded: 0x08,
  priority: 0x20,
});

/** Settings by their identifiers. */
export const Setting = /** @type {const} */ ({
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
});

/** Error codes of RST_STREAM and GOAWAY that we send. */
export const CANCEL = 8;

/**
 * Writes the 9 bytes before a frame's payload.
 * @param {Buffer} target
 * @param {number} at
 * @param {number} payloadBytes
 * @param {number} type
 * @param {number} flags
 * @param {number} streamId
 */
export function writeFrameHeader(target, at, payloadBytes, type, flags, streamId) {
  target[at] = payloadBytes >>> 16;
  target[at + 1] = payloadBytes >>> 8;
  target[at + 2] = payloadBytes;
  target[at + 3] = type;
  target[at + 4] = flags;
  target[at + 5] = streamId >>> 24;
  target[at + 6] = streamId >>> 16;
  target[at + 7] = streamId >>> 8;
  target[at + 8] = streamId;
}

/**
 * Encodes a whole frame.
 * @param {number} type
 * @param {number} flags
 * @param {number} streamId
 * @param {Uint8Array} payload
 */
export function frame(type, flags, streamId, payload) {
  const encoded = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  writeFrameHeader(encoded, 0, payload.length, type, flags, streamId);
  encoded.set(payload, FRAME_HEADER_BYTES);
  return encoded;
}

/**
 * Encodes a frame whose payload is one 32-bit number: WINDOW_UPDATE or RST_STREAM.
 * @param {number} type
 * @param {number} streamId
 * @param {number} value
 */
export function numberFrame(type, streamId, value) {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(value);
  return frame(type, 0, streamId, payload);
}

/**
 * Encodes our SETTINGS.
 * @param {[identifier: number, value: number][]} settings
 */
function settingsFrame(settings) {
  const payload = Buffer.allocUnsafe(settings.length * 6);
  settings.forEach(([identifier, value], index) => {
    payload.writeUInt16BE(identifier, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  });
  return frame(FrameType.settings, 0, 0, payload);
}

/**
 * What a connection begins with. No header table, so that a server's trailers are the same bytes for
 * the same fields on every call; windows so large that downloads never wait.
 */
export const OPENING = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1"),
  settingsFrame([
    [Setting.headerTableSize, 0],
    [Setting.enablePush, 0],
    [Setting.initialWindowSize, MAX_WINDOW_BYTES],
  ]),
  numberFrame(FrameType.windowUpdate, 0, MAX_WINDOW_BYTES - DEFAULT_WINDOW_BYTES),
]);

/** The answer to the server's SETTINGS. */
export const SETTINGS_ACK = frame(FrameType.settings, Flag.ack, 0, Buffer.alloc(0));
