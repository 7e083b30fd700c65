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
        releaseReceivers(error);
        destroy.apply(this, args);
      } else {
        setImmediate(() => destroy.apply(this, args));
      }
    },
  },
};

/** Node calls it without an error, too, and with null. */
function isOfParser(error: NodeJS.ErrnoException | null | undefined): error is Error {
  return error?.code === "ERR_HTTP2_ERROR";
}

/**
 * Has V8 write the stack of an error; until then the error holds the objects whose methods are in it.
 *
 * Here one of them is node's inner half of the connection, which holds the settings that weren't
 * acknowledged, whose callback holds the outer half, from which the error is reached: a ring through
 * native memory that is never collected. It was 25 kB for each client that said something else than
 * HTTP/2 and was gone by the time it was read.
 */
function releaseReceivers(error: Error): void {
  void error.stack;
}
