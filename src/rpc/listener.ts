import type { Http2Server } from "node:http2";
import { createServer, type Socket } from "node:net";
import { type ConnectionInjector, type Server, ServerCredentials } from "@grpc/grpc-js";
import { bindSocket } from "./bound-socket.ts";
import type { Refusal } from "./connections.ts";
import { defaultMaxConnections } from "./default-bounds.ts";
import { quietMoment } from "./going-away.ts";
import { Handshakes } from "./handshakes.ts";
import { connectionsOf, http2ServerOf } from "./http2-servers.ts";
import type { ListenAddress } from "./listen-address.ts";
import { ListenError, listenError } from "./listen-error.ts";

export { ListenError } from "./listen-error.ts";

/** What {@link listen} may be told. */
export interface ListenOptions {
  /** TLS, or in the clear if absent. */
  readonly credentials?: ServerCredentials;
  /** Refuse what other machines could reach, judged by the address that was really bound. */
  readonly loopbackOnly?: boolean;
  /** Open connections at once; one too many is closed, or takes the place of the oldest. */
  readonly maxConnections?: number;
  readonly replacesOldest?: boolean;
  /** Told when the system fails to accept a connection (say, too many open files). */
  readonly onAcceptError?: (error: Error) => void;
  /** Told of each connection that opens (1) and that closes (-1). */
  readonly onConnection?: ((change: 1 | -1) => void) | undefined;
  /** How long a client has until its first HTTP/2 frame, TLS included. */
  readonly maxHandshakeMs?: number;
  /** Told of each connection that these bounds ended. */
  readonly onRefused?: (refusal: Refusal) => void;
}

/** A busy machine takes a second for TLS. */
export const defaultMaxHandshakeMs = 10_000;
/** After this long without a packet the system asks whether the other side is still there. */
const keepAliveMs = 60_000;

/** One bound address. */
export interface Listener {
  /** What clients dial, with the port the system chose: `127.0.0.1:41234`, `unix:///run/a.sock`. */
  readonly address: string;
  /** Stops accepting and removes its own socket file. Open connections stay. Idempotent. */
  close(): Promise<void>;
  /** Cuts every open connection. */
  destroyConnections(): void;
}

/**
 * Binds one address and serves `server` on it. Throws {@link ListenError}.
 *
 * Sockets reach grpc-js through its connection injector, because its own `bindAsync` can't set a
 * socket file's mode, replace a dead one or take an inherited descriptor. Shut such a server down
 * with {@link drain}: grpc-js doesn't know our sockets.
 */
export async function listen(
  server: Server,
  address: ListenAddress,
  options: ListenOptions = {},
): Promise<Listener> {
  const credentials = options.credentials ?? ServerCredentials.createInsecure();
  const injector = server.createConnectionInjector(credentials);
  const listener = new SocketListener(injector, http2ServerOf(server), options);
  try {
    await listener.bind(address, options);
    attach(server, address, listener);
    return listener;
  } catch (error) {
    await listener.close();
    injector.destroy();
    throw listenError(address, error);
  }
}

/**
 * Shuts a server down: its listeners stop accepting, every client is told to go elsewhere, calls that
 * are open or on their way finish, and what's left after `graceMs` is cut. Says which of the two it
 * was. Later calls share the first one's promise, and its grace.
 *
 * grpc-js alone doesn't do it: over injected connections its `tryShutdown` calls back at once on
 * Node 24, calls open or not, and its `forceShutdown` cuts nothing while channelz is off (1.14.7).
 * So a server is drained when the last socket is closed, which happens when its last call ends.
 */
export function drain(server: Server, graceMs: number): Promise<"drained" | "forced"> {
  const { listeners, draining } = stateOf(server);
  if (draining !== undefined) return draining;
  const outcome = shutDown(server, listeners, graceMs);
  states.set(server, { listeners, draining: outcome });
  return outcome;
}

interface ServerState {
  readonly listeners: Set<SocketListener>;
  readonly draining?: Promise<"drained" | "forced">;
}

/** What drain must know of a server that grpc-js can't be asked: it lives as long as the server. */
const states = new WeakMap<Server, ServerState>();

function stateOf(server: Server): ServerState {
  const state = states.get(server) ?? { listeners: new Set() };
  states.set(server, state);
  return state;
}

function attach(server: Server, address: ListenAddress, listener: SocketListener): void {
  const { listeners, draining } = stateOf(server);
  if (draining !== undefined) {
    throw new ListenError(address, "shutting_down", "the server is shutting down");
  }
  listeners.add(listener);
}

async function shutDown(
  server: Server,
  listeners: ReadonlySet<SocketListener>,
  graceMs: number,
): Promise<"drained" | "forced"> {
  // A socket file that can't be removed is no reason to keep a server from draining.
  await Promise.allSettled([...listeners].map((listener) => listener.close()));
  const ended = Promise.all([...listeners].map((listener) => listener.ended));
  const drained = sayGoodbye(server, ended).then(() => "drained" as const);
  const outcome = await within(graceMs, drained);
  if (outcome === "drained") return outcome;
  server.forceShutdown();
  for (const listener of listeners) listener.destroyConnections();
  await ended;
  return "forced";
}

/** GOAWAY in a quiet moment, then waits for the last call of each connection. */
async function sayGoodbye(server: Server, ended: Promise<unknown>): Promise<void> {
  await quietMoment(connectionsOf(server)?.sessions ?? []);
  await Promise.all([ended, tryShutdown(server)]);
}

function tryShutdown(server: Server): Promise<void> {
  // Its error can only say that the server wasn't running.
  return new Promise((resolve) => server.tryShutdown(() => resolve()));
}

async function within<T>(graceMs: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const expiry = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), graceMs);
  });
  return Promise.race([promise, expiry]).finally(() => clearTimeout(timer));
}

class SocketListener implements Listener {
  address = "";
  /** Settles when it has stopped accepting and its last connection is closed. */
  readonly ended: Promise<void>;
  readonly #accepting = createServer({
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
  });
  readonly #sockets = new Set<Socket>();
  #removeFile: () => void = () => {};
  #closed = false;

  constructor(injector: ConnectionInjector, http2Server: Http2Server, options: ListenOptions) {
    const { onConnection, onRefused = () => {}, maxHandshakeMs = defaultMaxHandshakeMs } = options;
    const { maxConnections = defaultMaxConnections, replacesOldest = false } = options;
    this.ended = new Promise((resolve) => this.#accepting.once("close", resolve));
    if (!replacesOldest) this.#accepting.maxConnections = maxConnections;
    this.#accepting.on("drop", () => onRefused("connection"));
    const handshakes = new Handshakes(maxHandshakeMs, () => onRefused("handshake"));
    handshakes.watch(http2Server);
    this.#accepting.on("connection", (socket) => {
      if (this.#sockets.size >= maxConnections) this.#destroyOldest();
      this.#sockets.add(socket);
      onConnection?.(1);
      // Whoever reads the socket hears of it too; between two of them nobody would.
      socket.on("error", () => {});
      socket.once("close", () => {
        this.#sockets.delete(socket);
        onConnection?.(-1);
      });
      handshakes.begin(socket, (accepted) => injector.injectConnection(accepted));
    });
  }

  async bind(address: ListenAddress, options: ListenOptions): Promise<void> {
    const loopbackOnly = options.loopbackOnly ?? false;
    const bound = await bindSocket(this.#accepting, address, loopbackOnly);
    this.#removeFile = bound.removeFile;
    this.#accepting.on("error", options.onAcceptError ?? (() => {}));
    this.address = bound.address;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#accepting.close();
    this.#removeFile();
  }

  destroyConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Refusing the newcomer instead would let idle connections keep everybody out. */
  #destroyOldest(): void {
    const [oldest] = this.#sockets;
    if (oldest === undefined) return;
    oldest.destroy();
    this.#sockets.delete(oldest);
  }
}
