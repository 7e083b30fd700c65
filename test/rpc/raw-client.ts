import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectSocket, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** The bytes with which every HTTP/2 client begins. */
export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** A frame of HTTP/2. */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A gRPC message with its prefix, which may lie. */
export function grpcMessage(bytes: Uint8Array, length = bytes.length, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt8(flag, 0);
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, bytes]);
}

/** A TCP connection, until the test ends. */
export async function socketTo(address: string): Promise<Socket> {
  const [host, port] = address.split(":");
  const socket = connectSocket(Number(port), host);
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** An HTTP/2 connection without gRPC's manners, until the test ends. */
export async function sessionTo(address: string): Promise<ClientHttp2Session> {
  const session = connect(`http://${address}`);
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  await once(session, "remoteSettings");
  return session;
}

/** Begins a call; its request is left to the caller. */
export function open(
  session: ClientHttp2Session,
  path: string,
  headers: OutgoingHttpHeaders = {},
): ClientHttp2Stream {
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  stream.on("error", () => {});
  return stream;
}

/** How a call ended: its status, or -1 when it was reset without one. */
export async function statusOf(stream: ClientHttp2Stream): Promise<number> {
  let status: string | undefined;
  const note = (headers: IncomingHttpHeaders) => {
    status = (headers["grpc-status"] as string | undefined) ?? status;
  };
  stream.on("response", note).on("trailers", note).resume();
  if (!stream.destroyed) {
    await new Promise((resolve) => stream.once("close", resolve));
  }
  return Number(status ?? -1);
}
