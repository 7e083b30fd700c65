import { once } from "node:events";
import type { Server } from "node:net";
import { formatAddress, isLoopback, type ListenAddress } from "./listen-address.ts";
import { ListenError } from "./listen-error.ts";
import { bindUnixSocket } from "./unix-socket.ts";

/** Where a server has been bound. */
export interface BoundSocket {
  /** What clients dial, with the port the system chose: `127.0.0.1:41234`, `unix:///run/a.sock`. */
  readonly address: string;
  /** Removes the socket file, if there is one and it is still ours. */
  removeFile(): void;
}

/**
 * Binds a server of node's, of any protocol, to an address. Throws what the system throws, or a
 * {@link ListenError}; a server that listens nevertheless is left for the caller to close.
 *
 * @param loopbackOnly Refuse what other machines could reach, judged by what was really bound.
 */
export async function bindSocket(
  server: Server,
  address: ListenAddress,
  loopbackOnly: boolean,
): Promise<BoundSocket> {
  let removeFile = () => {};
  if (address.kind === "unix") {
    removeFile = await bindUnixSocket(server, address);
  } else {
    server.listen(address.kind === "fd" ? { fd: address.fd } : address);
    await once(server, "listening");
  }
  const bound = boundAddress(server, address);
  // A descriptor that has no IP address is a unix socket.
  if (loopbackOnly && bound.kind !== "fd" && !isLoopback(bound)) {
    throw new ListenError(address, "not_loopback", "other machines could reach it");
  }
  return { address: formatAddress(bound), removeFile };
}

function boundAddress(server: Server, asked: ListenAddress): ListenAddress {
  const bound = server.address();
  if (bound === null || typeof bound === "string") return asked;
  return { kind: "tcp", host: bound.address, port: bound.port };
}
