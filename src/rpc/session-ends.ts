import type { Http2Server, ServerHttp2Session } from "node:http2";

/**
 * Has the connections of a server end in a turn of their own, rather than while a packet is being
 * parsed.
 *
 * Node ends a connection as soon as it has parsed its client's GOAWAY, or the end of the last call of a
 * connection that closes. When a call and a frame that no client may send follow in the same packet,
 * nghttp2 finds itself ended already, which in Node.js 20.20.2 (nghttp2 1.61) is a failed assertion: any
 * client could abort the process with a hundred bytes. 20.11, 22.23 and 24.21 don't do that.
 */
export function endInTurn(server: Http2Server): void {
  server.on("session", (session) => {
    Object.defineProperties(session, inTurn);
  });
}

/** One function for all connections. */
const inTurn: PropertyDescriptorMap & ThisType<ServerHttp2Session> = {
  destroy: {
    value(...args: Parameters<ServerHttp2Session["destroy"]>) {
      const { destroy } = Object.getPrototypeOf(this) as ServerHttp2Session;
      const [error] = args;
      if (isOfParser(error)) {
        // It has ended by itself, and mustn't be given more.
        destroy.apply(this, args);
      } else {
        setImmediate(() => destroy.apply(this, args));
      }
    },
  },
};

function isOfParser(error: (Error & { readonly code?: string }) | undefined): boolean {
  return error?.code === "ERR_HTTP2_ERROR";
}
