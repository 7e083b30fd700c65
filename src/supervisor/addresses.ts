import { formatAddress, type ListenAddress, parseListenAddress } from "../rpc/listen-address.ts";
import { type BoundHandle, canHoldSockets, HeldSocket } from "./held-sockets.ts";
import type { SidecarBinding } from "./ready-line.ts";

/** What a process is told of its addresses. */
export interface Listening {
  /** For `--listen`, in the order of the addresses. */
  readonly flags: readonly string[];
  /** To be inherited, in the order of the descriptors. */
  readonly handles: readonly BoundHandle[];
}

/**
 * The addresses of a sidecar, which stay the same from one process to the next. Held: this process binds
 * them and every child inherits them. Else each child binds them, and what port 0 became is asked for again.
 */
export class Addresses {
  readonly isHeld: boolean;
  readonly #asked: readonly ListenAddress[];
  #last: readonly ListenAddress[];
  #sockets: HeldSocket[] = [];

  /** Throws when a text is no address, or is a descriptor. */
  constructor(texts: readonly string[], hold: boolean) {
    this.#asked = texts.map(parse);
    this.#last = this.#asked;
    this.isHeld = hold && canHoldSockets && texts.length > 0;
  }

  /** Whether all of them are open here. */
  get isOpen(): boolean {
    return this.#sockets.length > 0;
  }

  /** Readies them for a process: opens what is to be held and isn't open yet. */
  async open(): Promise<Listening> {
    if (!this.isHeld) return { flags: this.#last.map(formatAddress), handles: [] };
    if (!this.isOpen) await this.#openAll();
    return {
      flags: this.#sockets.map((_, index) => `fd:${3 + index}`),
      handles: this.#sockets.map(({ handle }) => handle),
    };
  }

  /** The bindings as clients know them: a process that inherited a socket file can't name it. */
  named(bindings: readonly SidecarBinding[]): readonly SidecarBinding[] {
    return bindings.map((binding) => {
      const fd = /^fd:(\d+)$/.exec(binding.address)?.[1];
      const held = fd === undefined ? undefined : this.#sockets[Number(fd) - 3];
      return held === undefined ? binding : { ...binding, address: formatAddress(held.address) };
    });
  }

  /** A process is ready on these: the next one is to have the same. */
  keep(bindings: readonly SidecarBinding[]): void {
    if (this.isHeld || bindings.length !== this.#asked.length) return;
    this.#last = this.#asked.map((asked, index) => parsed(bindings[index]?.address ?? "") ?? asked);
  }

  /** Somebody else has one of them: port 0 may become another. */
  forget(): void {
    this.close();
    this.#last = this.#asked;
  }

  /** Closes what is held. The next `open` takes the same addresses, if nobody else has them by then. */
  close(): void {
    for (const socket of this.#sockets.splice(0)) socket.close();
  }

  async #openAll(): Promise<void> {
    const opened: HeldSocket[] = [];
    try {
      for (const address of this.#last) opened.push(await HeldSocket.open(address));
    } catch (error) {
      for (const socket of opened) socket.close();
      throw error;
    }
    this.#sockets = opened;
    this.#last = opened.map(({ address }) => address);
  }
}

/** Undefined: no address that can be asked for; the process came to it by itself. */
function parsed(text: string): ListenAddress | undefined {
  try {
    return parseListenAddress(text);
  } catch {
    return undefined;
  }
}

function parse(text: string): ListenAddress {
  const address = parseListenAddress(text);
  if (address.kind === "fd") {
    throw new TypeError(`${text}: the supervisor opens the addresses itself; name one`);
  }
  return address;
}
