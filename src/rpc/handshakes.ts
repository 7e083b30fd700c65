import type { Http2Server, ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { socketBeneath } from "../internals/tls-socket.ts";

/** How long what was last said to a client may take to be read. */
const lingerMs = 5_000;

/**
 * Closes connections that don't become HTTP/2 connections in time, TLS included: what counts is that
 * the client's settings came, the first frame of any client.
 */
export class Handshakes {
  readonly #maxMs: number;
  readonly #onLate: () => void;
  readonly #timers = new Map<Socket, NodeJS.Timeout>();
  /** The socket whose session node is just making. */
  #current: Socket | undefined;

  constructor(maxMs: number, onLate: () => void) {
    this.#maxMs = maxMs;
    this.#onLate = onLate;
  }

  watch(server: Http2Server): void {
    server.prependListener("secureConnection", (socket: object) => {
      this.#current = socketBeneath(socket);
    });
    server.on("session", (session) => this.#begin(session));
  }

  /** Gives a socket to `accept`, and its client its time. */
  begin(socket: Socket, accept: (socket: Socket) => void): void {
    const timer = setTimeout(() => {
      this.#onLate();
      socket.destroy();
    }, this.#maxMs);
    this.#timers.set(socket, timer.unref());
    socket.once("close", () => this.#end(socket));
    this.#current = socket;
    accept(socket);
    this.#current = undefined;
  }

  #begin(session: ServerHttp2Session): void {
    const socket = this.#current;
    if (socket !== undefined) {
      session.once("remoteSettings", () => this.#end(socket));
      session.once("close", () => endSoon(socket));
    }
  }

  #end(socket: Socket): void {
    clearTimeout(this.#timers.get(socket));
    this.#timers.delete(socket);
  }
}

/** Node waits for ever until a client that lost its session has read what was sent to it. */
function endSoon(socket: Socket): void {
  if (socket.destroyed) {
    return;
  }
  const timer = setTimeout(() => socket.destroy(), lingerMs).unref();
  socket.once("close", () => clearTimeout(timer));
}
