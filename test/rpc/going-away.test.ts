import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { handleUnaryCall, Server } from "@grpc/grpc-js";
import { expect, onTestFinished, test } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { bytesMethod } from "../../src/rpc/codec.ts";
import { drain } from "../../src/rpc/listener.ts";
import { start } from "./peers.ts";

const { check } = Health.method;
/** For what a busy machine may take its time for. */
const patiently = { timeout: 20_000 };

test("a client hears that it should go when it has read all, and every call it began by then is served", async () => {
  const { server, address, finish } = await startSlow();
  const peer = await Peer.dial(address, true);
  peer.call(1);
  peer.call(3);
  await expect.poll(() => finish.length, patiently).toBe(2);

  const drained = drain(server, 20_000);
  // Of what comes later it knows by the number that none was begun.
  await expect.poll(() => peer.goAways, patiently).toEqual([3]);
  for (const answer of finish) answer();

  expect(await drained).toBe("drained");
  expect(peer.endedStreams).toEqual([1, 3]);
});

test("a client that never says that it has heard is waited for a second, not for ever", async () => {
  const { server, address } = await startSlow();
  const peer = await Peer.dial(address, false);

  expect(await drain(server, 20_000)).toBe("drained");
  await peer.closed;

  expect(peer.goAways.at(-1)).toBe(0);
});

/** A server whose Check answers when it's told to, by one function for each call. */
async function startSlow() {
  const finish: (() => void)[] = [];
  const slowCheck: handleUnaryCall<Buffer, Buffer> = (_call, done) =>
    void finish.push(() => done(null, Buffer.alloc(0)));
  const add = (server: Server) =>
    server.addService({ check: bytesMethod(check) }, { check: slowCheck });
  return { ...(await start(add)), finish };
}

const type = { data: 0, headers: 1, settings: 4, ping: 6, goAway: 7 };
const flag = { end: 1, ack: 1, endHeaders: 4 };

/** A client as plain as can be: bytes on a socket, so that nothing is done that a test doesn't do. */
class Peer {
  /** The last streams that GOAWAYs have named. */
  readonly goAways: number[] = [];
  readonly endedStreams: number[] = [];
  readonly closed: Promise<unknown>;
  readonly #socket: Socket;
  readonly #pings: Buffer[] = [];
  #isListening: boolean;
  #read: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket, isListening: boolean) {
    this.#socket = socket;
    this.#isListening = isListening;
    this.closed = once(socket, "close");
    socket.on("error", () => {});
    socket.on("data", (bytes) => this.#take(bytes));
    socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings]));
  }

  /** @param isListening It answers PINGs, until the first GOAWAY. */
  static async dial(address: string, isListening: boolean): Promise<Peer> {
    const socket = connect(Number(address.split(":")[1]), "127.0.0.1");
    onTestFinished(() => void socket.destroy());
    await once(socket, "connect");
    return new Peer(socket, isListening);
  }

  /** Begins a call of Check. */
  call(stream: number): void {
    const message = frame(type.data, flag.end, stream, Buffer.alloc(5));
    this.#socket.write(
      Buffer.concat([frame(type.headers, flag.endHeaders, stream, callHeaders), message]),
    );
  }

  answerPings(): void {
    this.#isListening = true;
    for (const ping of this.#pings.splice(0)) this.#answer(ping);
  }

  #take(bytes: Buffer): void {
    this.#read = Buffer.concat([this.#read, bytes]);
    while (this.#read.length >= 9 && this.#read.length >= 9 + this.#read.readUIntBE(0, 3)) {
      const end = 9 + this.#read.readUIntBE(0, 3);
      const [kind, flags] = [this.#read[3]!, this.#read[4]!];
      const stream = this.#read.readUInt32BE(5);
      const payload = this.#read.subarray(9, end);
      this.#read = this.#read.subarray(end);
      if (kind === type.goAway) this.#onGoAway(payload.readUInt32BE(0));
      if (kind === type.ping && (flags & flag.ack) === 0) this.#onPing(payload);
      if (kind === type.headers && (flags & flag.end) !== 0) this.endedStreams.push(stream);
    }
  }

  #onGoAway(lastStream: number): void {
    this.goAways.push(lastStream);
    this.#isListening = false;
  }

  #onPing(payload: Buffer): void {
    if (this.#isListening) this.#answer(payload);
    else this.#pings.push(payload);
  }

  #answer(payload: Buffer): void {
    this.#socket.write(frame(type.ping, flag.ack, 0, payload));
  }
}

function frame(kind: number, flags: number, stream: number, payload?: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload?.length ?? 0, 0, 3);
  head[3] = kind;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload ?? Buffer.alloc(0)]);
}

const settings = frame(type.settings, 0, 0);

/** HPACK: each header as a literal with its name, never indexed. */
const callHeaders = Buffer.concat(
  Object.entries({
    ":method": "POST",
    ":scheme": "http",
    ":path": `/${Health.typeName}/${check.name}`,
    ":authority": "a",
    "content-type": "application/grpc",
    te: "trailers",
  }).flatMap(([name, value]) => [
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]),
);
