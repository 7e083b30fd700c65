import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Server } from "@grpc/grpc-js";
import { newestHttp2Server } from "../internals/grpc-server.ts";
import { endInTurn } from "../internals/session-ends.ts";
import type { Connections } from "./connections.ts";
import { pathOfUnknown } from "./unknown-methods.ts";

/** The longest that grpc-js can wait, in seconds: its timers have 31 bits of milliseconds. */
const longestSeconds = Math.floor(0x7fff_ffff / 1000);
const secondsOf: Readonly<Record<string, number>> = { H: 3600, M: 60, S: 1 };

/** What the listeners of a server need to know of it. */
interface Prepared {
  readonly connections: Connections;
  readonly hasMethod: (path: string) => boolean;
}

const preparedOf = new WeakMap<Server, Prepared>();

/** Has the connections and calls of a server's listeners looked after; see {@link http2ServerOf}. */
export function prepareListeners(server: Server, prepared: Prepared): void {
  preparedOf.set(server, prepared);
}

/** The open connections of a server's listeners. */
export function connectionsOf(server: Server): Connections | undefined {
  return preparedOf.get(server)?.connections;
}

/**
 * The node:http2 server behind the connection injector that was made last, prepared: its connections are
 * looked after and end in order, no deadline is misunderstood, and no unknown method answered by grpc-js.
 */
export function http2ServerOf(server: Server): Http2Server {
  const http2Server = newestHttp2Server(server);
  const prepared = preparedOf.get(server);
  endInTurn(http2Server);
  prepared?.connections.watch(http2Server);
  http2Server.prependListener("stream", (_stream: ServerHttp2Stream, headers) => {
    boundTimeout(headers);
    if (prepared?.hasMethod(String(headers[":path"])) === false) headers[":path"] = pathOfUnknown;
  });
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
