import { lookup } from "node:dns/promises";
import { EventEmitter } from "node:events";
import net, { isIP } from "node:net";
import { getSystemErrorName } from "node:util";
import { formatAddress, type ListenAddress } from "../rpc/listen-address.ts";
import { type ListenError, listenError } from "../rpc/listen-error.ts";
import { bindUnixSocket } from "../rpc/unix-socket.ts";
import { SidecarError } from "./sidecar-error.ts";

/**
 * A socket that is bound, and listened to by nobody in this process. Passed to a child through
 * `stdio`, the child listens on it; connections that come while no child accepts wait in its queue.
 */
export interface BoundHandle {
  close(): void;
  getsockname?(out: Record<string, unknown>): number;
}

/**
 * What node:cluster binds shared sockets with. It has an underscore, and is what Node offers: a
 * `net.Server` that listens also accepts, and would take connections away from the child. Where it is
 * missing sidecars bind their addresses themselves.
 */
type CreateHandle = (host: string, port: number, family: 4 | 6 | -1) => BoundHandle | number;

function createHandle(): CreateHandle | undefined {
  const create: unknown = Reflect.get(net, "_createServerHandle");
  // Checked above as far as a function can be; test/supervisor runs it on each Node.
  return typeof create === "function" ? (create as CreateHandle) : undefined;
}

/** Whether sockets can be opened here and inherited by a child. Not on Windows. */
export const canHoldSockets = process.platform !== "win32" && createHandle() !== undefined;

/** One address that stays open while the sidecars behind it come and go. */
export class HeldSocket {
  /** What clients dial; of port 0 the port it got. */
  readonly address: ListenAddress;
  readonly handle: BoundHandle;
  readonly #removeFile: () => void;

  constructor(address: ListenAddress, handle: BoundHandle, removeFile = () => {}) {
    this.address = address;
    this.handle = handle;
    this.#removeFile = removeFile;
  }

  /** Binds the address. Throws {@link SidecarError}: `ADDRESS_IN_USE` is worth another try. */
  static async open(address: ListenAddress): Promise<HeldSocket> {
    try {
      return address.kind === "unix" ? await openUnix(address) : await openTcp(address);
    } catch (error) {
      throw socketError(listenError(address, error));
    }
  }

  /** Connections in the queue are refused, if no child has the socket. A socket file is removed. */
  close(): void {
    this.#removeFile();
    this.handle.close();
  }
}

async function openTcp(asked: ListenAddress): Promise<HeldSocket> {
  if (asked.kind !== "tcp") throw new Error(`${formatAddress(asked)} is inherited already`);
  const { address: host, family } = await resolveHost(asked.host);
  const handle = bind(host, asked.port, family);
  // libuv keeps "address in use" to itself until the socket is asked something.
  const bound: Record<string, unknown> = {};
  const code = handle.getsockname?.(bound) ?? 0;
  if (code < 0) {
    handle.close();
    throw systemError(code);
  }
  return new HeldSocket({ kind: "tcp", host, port: Number(bound["port"]) }, handle);
}

async function resolveHost(host: string): Promise<{ address: string; family: 4 | 6 }> {
  const family = isIP(host);
  if (family !== 0) return { address: host, family: family === 6 ? 6 : 4 };
  const found = await lookup(host);
  return { address: found.address, family: found.family === 6 ? 6 : 4 };
}

async function openUnix(address: ListenAddress & { kind: "unix" }): Promise<HeldSocket> {
  const binder = new UnixBinder();
  try {
    // Of a server it needs that it binds a path and says so.
    const removeFile = await bindUnixSocket(binder as unknown as net.Server, address);
    return new HeldSocket(address, binder.take(), removeFile);
  } catch (error) {
    binder.handle?.close();
    throw error;
  }
}

/** Binds a path without listening on it. */
class UnixBinder extends EventEmitter {
  handle: BoundHandle | undefined;

  listen({ path }: { path: string }): void {
    this.handle = bind(path, -1, -1);
    process.nextTick(() => this.emit("listening"));
  }

  take(): BoundHandle {
    if (this.handle === undefined) throw new Error("nothing was bound");
    return this.handle;
  }
}

function bind(host: string, port: number, family: 4 | 6 | -1): BoundHandle {
  const handle = createHandle()?.(host, port, family);
  if (handle === undefined) throw new Error("sockets can't be held here");
  if (typeof handle === "number") throw systemError(handle);
  return handle;
}

function systemError(code: number): Error {
  const name = getSystemErrorName(code);
  return Object.assign(new Error(name), { code: name });
}

function socketError(error: ListenError): SidecarError {
  const isTaken = error.reason === "address_in_use";
  return new SidecarError(isTaken ? "ADDRESS_IN_USE" : "CANNOT_LISTEN", error.message, {
    retryable: isTaken || error.reason === "address_unavailable",
    cause: error,
  });
}
