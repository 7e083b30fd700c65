import { Socket } from "node:net";

/**
 * The sockets of a pool's connections, also of those that are still being opened, which the pool itself
 * doesn't show. While they are shut, every one ends as soon as it is made.
 */
export class Sockets {
  readonly #open = new Set<Socket>();
  #isShut = false;
  #bytesReadBefore = 0;

  /** Bytes that came over all of them, also over those that are closed by now. */
  get bytesRead(): number {
    let bytes = this.#bytesReadBefore;
    for (const socket of this.#open) {
      bytes += socket.bytesRead;
    }
    return bytes;
  }

  /** For pg, which connects it. */
  make(): Socket {
    const socket = new Socket();
    this.#open.add(socket);
    socket.once("close", () => {
      this.#open.delete(socket);
      this.#bytesReadBefore += socket.bytesRead;
    });
    if (this.#isShut) {
      // Not before pg has told it where to connect to: it waits for its end.
      process.nextTick(() => socket.destroy());
    }
    return socket;
  }

  /** Ends all there are, without a goodbye, which might be waited for. */
  shut(): void {
    this.#isShut = true;
    for (const socket of this.#open) {
      socket.destroy();
    }
  }

  open(): void {
    this.#isShut = false;
  }
}
