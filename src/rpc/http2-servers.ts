import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Server } from "@grpc/grpc-js";
import { type Connections, trailersOnly } from "./connections.ts";
import type { OutgoingStatus } from "./outgoing-status.ts";
import { endInTurn } from "./session-ends.ts";

/** The longest that grpc-js can wait, in seconds: its timers have 31 bits of milliseconds. */
const longestSeconds = Math.floor(0x7fff_ffff / 1000);
const secondsOf: Readonly<Record<string, number>> = { H: 3600, M: 60, S: 1 };

const connectionsOf = new WeakMap<Server, Connections>();

/** Has the connections of a server's listeners looked after; see {@link http2ServerOf}. */
export function bindConnections(server: Server, connections: Connections): void {
  connectionsOf.set(server, connections);
}

/**
 * The node:http2 server behind the connection injector that was made last, which grpc-js keeps to
 * itself, prepared: its connections are looked after and end in order, and no deadline is misunderstood.
 */
export function http2ServerOf(server: Server): Http2Server {
  const all: unknown = Reflect.get(server, "http2Servers");
  const last = all instanceof Map ? [...all.keys()].at(-1) : undefined;
  if (last === undefined) {
    throw new Error("grpc-js keeps its http2 servers elsewhere");
  }
  const http2Server = last as Http2Server;
  endInTurn(http2Server);
  connectionsOf.get(server)?.watch(http2Server);
  http2Server.prependListener("stream", (_stream: ServerHttp2Stream, headers) =>
    boundTimeout(headers),
  );
  return http2Server;
}

/**
 * Shortens a deadline that grpc-js would take for one that has passed (its milliseconds overflow 31
 * bits), and spoils one that it would take for another ("1Hour").
 */
export function boundTimeout(headers: IncomingHttpHeaders): void {
  const timeout = headers["grpc-timeout"];
  if (timeout === undefined) {
    return;
  }
  const [, digits = "", unit = ""] = /^(\d{1,8})([HMSmun])$/.exec(String(timeout)) ?? [];
  if (unit === "") {
    headers["grpc-timeout"] = "?";
  } else if (Number(digits) * (secondsOf[unit] ?? 0) > longestSeconds) {
    headers["grpc-timeout"] = `${longestSeconds}S`;
  }
}

/**
 * Gives calls of methods that don't exist the details that every error has. Interceptors don't see
 * such calls; and grpc-js's own answer repeats the path, which may be long and hold anything.
 */
export function completeUnknownMethods(
  server: Server,
  complete: (status: OutgoingStatus) => OutgoingStatus,
): void {
  Reflect.set(
    server,
    "_respondWithError",
    ({ code }: OutgoingStatus, stream: ServerHttp2Stream) => {
      const details = "The server does not implement the method";
      stream.respond(trailersOnly(complete({ code, details, metadata: null })), {
        endStream: true,
      });
    },
  );
}
