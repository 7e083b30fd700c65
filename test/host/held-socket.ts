import { onTestFinished } from "vitest";

/** A TCP socket that a host has bound and hands to its sidecars, without ever accepting itself. */
export interface HeldSocket {
  /** For the `stdio` of a child. */
  readonly fd: number;
  /** What clients dial. */
  readonly address: string;
}

/** As much of node's own TCP handle as is used here. */
interface TcpHandle {
  readonly fd: number;
  bind(host: string, port: number): number;
  getsockname(into: { port?: number }): number;
  close(): void;
}

interface Binding {
  readonly TCP: new (kind: number) => TcpHandle;
  readonly constants: { readonly SERVER: number };
}

/**
 * Binds a free port. Node's public servers can't do it: they begin to accept as soon as they listen,
 * and would take connections away from the sidecars. A host in another language just binds and listens.
 */
export function holdSocket(): HeldSocket {
  const { binding } = process as unknown as { binding: (name: "tcp_wrap") => Binding };
  const { TCP, constants } = binding("tcp_wrap");
  const handle = new TCP(constants.SERVER);
  onTestFinished(() => handle.close());
  const failed = handle.bind("127.0.0.1", 0);
  if (failed !== 0) throw new Error(`can't bind: ${failed}`);
  const bound: { port?: number } = {};
  handle.getsockname(bound);
  return { fd: handle.fd, address: `127.0.0.1:${bound.port}` };
}
