import { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/** The socket that a TLS socket was made of, which node keeps to itself. */
export function socketBeneath(secure: object): Socket | undefined {
  const parent: unknown = Reflect.get(secure, "_parent");
  return parent instanceof Socket ? parent : undefined;
}

/** Whether it is where it is looked for. */
export function hasSocketBeneath(): boolean {
  const socket = new Socket();
  const secure = new TLSSocket(socket);
  const isFound = socketBeneath(secure) === socket;
  secure.destroy();
  socket.destroy();
  return isFound;
}
