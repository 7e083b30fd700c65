import { connect } from "node:http2";
import { type AddressInfo, createServer } from "node:net";
import { frame, grpcMessage, preface } from "../rpc/raw-client.ts";
import type { Random } from "./random.ts";

/** What a good client sent: frames after the preface. */
export type Recording = readonly Buffer[];

/** Records the frames of two calls by node's client, its first request block and a later one. */
export async function recordFrames(path: string, message: Uint8Array): Promise<Recording> {
  const chunks: Buffer[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (chunk) => void chunks.push(chunk));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  session.on("error", () => {});
  for (let call = 0; call < 2; call++) {
    const headers = {
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
    };
    const stream = session.request(headers);
    stream.on("error", () => {});
    stream.end(grpcMessage(message));
  }
  const isEnd = (bytes: Buffer) => bytes[3] === 0 && ((bytes[4] ?? 0) & 1) === 1;
  let frames: Buffer[] = [];
  while (frames.filter(isEnd).length < 2) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    frames = split(Buffer.concat(chunks).subarray(preface.length));
  }
  session.destroy();
  server.close();
  return frames;
}

/** The frames that are whole. */
export function split(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at + 9 <= bytes.length; ) {
    const end = at + 9 + bytes.readUIntBE(at, 3);
    if (end > bytes.length) break;
    frames.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

/** What a client sends that is broken, or means harm. */
export function socketInput(random: Random, good: Recording): Buffer {
  switch (random.below(8)) {
    case 0:
      return random.bytes(200);
    case 1:
      return random.damage(Buffer.concat([preface, ...good]));
    case 2:
      return Buffer.concat([preface, ...good.slice(0, 1), ...flood(random)]);
    default:
      return Buffer.concat([preface, ...good.flatMap((bytes) => damagedFrame(random, bytes))]);
  }
}

function damagedFrame(random: Random, bytes: Buffer): Buffer[] {
  const copy = Buffer.from(bytes);
  switch (random.below(10)) {
    case 0:
      return [];
    case 1:
      return [bytes, bytes];
    case 2:
      copy.writeUInt8(random.below(12), 3);
      return [copy];
    case 3:
      copy.writeUInt8(random.below(256), 4);
      return [copy];
    case 4:
      copy.writeUInt32BE(random.of([0, 1, 2, 3, 5, 0x7fff_ffff, 0xffff_ffff]), 5);
      return [copy];
    case 5:
      copy.writeUIntBE(random.of([0, 1, 8, 16_384, 16_385, 0xff_ffff]), 0, 3);
      return [copy];
    case 6: {
      const payload = random.damage(bytes.subarray(9));
      return [frame(bytes[3] ?? 0, bytes[4] ?? 0, bytes.readUInt32BE(5), payload)];
    }
    case 7:
      return [bytes, strayFrame(random)];
    default:
      return [bytes];
  }
}

function strayFrame(random: Random): Buffer {
  const payload = random.of([
    Buffer.alloc(0),
    Buffer.alloc(4, 0xff),
    Buffer.from([0x7f, 0xff, 0xff, 0xff]),
    Buffer.alloc(8),
    random.bytes(40),
  ]);
  return frame(random.below(12), random.below(256), random.of([0, 1, 3, 5, 7]), payload);
}

/** Many frames of a kind that a server must answer, keep or decode. */
function flood(random: Random): Buffer[] {
  const headers = Buffer.from([0x82, 0x86, 0x84]);
  const kinds = [
    // SETTINGS, PING, WINDOW_UPDATE beyond its end, PRIORITY, RST_STREAM, empty DATA, CONTINUATION.
    () => frame(4, 0, 0, Buffer.from([0, 4, 0, 0, random.below(256), 0])),
    () => frame(6, 0, 0, Buffer.alloc(8)),
    () => frame(8, 0, random.of([0, 1]), Buffer.from([0x7f, 0xff, 0xff, 0xff])),
    () => frame(2, 0, 2 * random.below(99) + 1, Buffer.alloc(5)),
    () => frame(3, 0, 2 * random.below(99) + 1, Buffer.alloc(4)),
    () => frame(0, 0, 1, Buffer.alloc(0)),
    () => frame(9, 0, 1, random.bytes(20)),
  ];
  const kind = random.of(kinds);
  return [frame(1, random.of([0, 4, 5]), 1, headers), ...Array.from({ length: 300 }, kind)];
}
