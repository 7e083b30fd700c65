import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { ServerInterceptor } from "@grpc/grpc-js";
import type { Connection, Connections } from "../rpc/connections.ts";
import { openStreamOf } from "../rpc/open-streams.ts";
import type { OutgoingStatus } from "../rpc/outgoing-status.ts";
import { noteRefusedReply, type Overloaded } from "../rpc/overloaded.ts";
import { derivedCalls } from "./derived-call.ts";
import { forgetWhenClosed } from "./ended-streams.ts";

/** Smaller replies aren't counted: a connection has at most 1,024 of them. */
const countedReplyBytes = 16 * 1024;
/** What a piece of a message costs beside its bytes: somebody may send it byte by byte. */
const pieceBytes = 256;

/** As much of grpc-js's call as is used here; grpc-call.ts checks that it is there. */
interface BaseCall {
  readonly stream: ServerHttp2Stream;
  readonly handler: { readonly path: string; readonly type: string };
  readonly decoder: { readonly readMessageRemaining: number; readPartialMessage: Buffer[] };
  readonly receivedHalfClose: boolean;
  readonly cancelled: boolean;
  /** Whether a status follows what was written. */
  readonly wantTrailers: boolean;
  handleDataFrame(data: Buffer): void;
  decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer>;
  sendMessage(message: Buffer, callback: () => void): void;
  sendStatus(status: OutgoingStatus): void;
  notifyOnCancel(): void;
}

/** What a call holds of large messages. Most calls have none. */
interface Holding {
  readonly connection: Connection;
  requestBytes: number;
  replyBytes: number;
}

/**
 * Bounds what the calls of a connection hold: requests of several frames until their call ends, and
 * larger replies until they are read. Every status is completed on its way, also those that grpc-js
 * makes by itself (message too large, deadline passed), which pass by the interceptor chain.
 */
export function boundCalls(connections: Connections, overloaded: Overloaded): ServerInterceptor {
  const bounded = derivedCalls((base) =>
    // The declared type is the wrapper class; what it is stands above.
    overrides(base as unknown as BaseCall, connections, overloaded),
  );
  return (method, call) => {
    const derived = bounded(call);
    const base = derived as unknown as BaseCall;
    openStreamOf(base.stream)?.answerBy(base);
    forgetWhenClosed(base.stream);
    if (method.responseStream) {
      admitLong(base, connections, overloaded);
    }
    return derived;
  };
}

function admitLong(call: BaseCall, connections: Connections, overloaded: Overloaded): void {
  const connection = connections.of(call.stream.session);
  if (connection !== undefined && !connections.admitLong(connection, call.stream)) {
    connections.bounds.onRefused("stream");
    // When grpc-js has set the call up.
    process.nextTick(() => call.sendStatus(overloaded(call.handler.path, "request")));
  }
}

function overrides(
  base: BaseCall,
  connections: Connections,
  overloaded: Overloaded,
): PropertyDescriptorMap & ThisType<BaseCall> {
  const holdings = new Holdings(connections);
  const refuseReply = (call: BaseCall, message: Buffer) => {
    noteRefusedReply(message);
    call.sendStatus(overloaded(call.handler.path, "reply"));
  };
  return {
    handleDataFrame: {
      value(data: Buffer) {
        base.handleDataFrame.call(this, data);
        if (this.cancelled) {
          return;
        }
        if (this.decoder.readMessageRemaining > 0) {
          if (!holdings.addRequest(this, data.length + pieceBytes)) {
            this.sendStatus(overloaded(this.handler.path, "request"));
          }
        } else if (this.handler.type === "bidi") {
          // Its messages are done with one by one.
          holdings.release(this);
        }
      },
    },
    decompressMessage: {
      value(message: Buffer, encoding: string) {
        if (encoding !== "gzip" && encoding !== "deflate") {
          return base.decompressMessage.call(this, message, encoding);
        }
        return holdings.inTurn(this, async () => {
          if (this.cancelled) {
            throw overloaded(this.handler.path, "request");
          }
          const bytes = await base.decompressMessage.call(this, message, encoding);
          if (!holdings.addRequest(this, bytes.length)) {
            throw overloaded(this.handler.path, "request");
          }
          return bytes;
        });
      },
    },
    sendMessage: {
      value(message: Buffer, callback: () => void) {
        if (this.wantTrailers) {
          // Its deadline has passed. Node would take it for an error, and never send the status.
          return;
        }
        const size = message.byteLength;
        if (size < countedReplyBytes) {
          base.sendMessage.call(this, message, callback);
        } else if (holdings.addReply(this, size)) {
          base.sendMessage.call(this, message, () => {
            holdings.releaseReply(this, size);
            callback();
          });
        } else {
          refuseReply(this, message);
        }
      },
    },
    sendStatus: {
      value(answer: OutgoingStatus) {
        const isEarly = !this.receivedHalfClose && !this.cancelled;
        base.sendStatus.call(this, connections.bounds.complete(answer));
        if (isEarly) {
          // What came of a message that nobody waits for any more.
          this.decoder.readPartialMessage = [];
          connections.of(sessionOf(this))?.closeLater(this.stream);
        }
      },
    },
    notifyOnCancel: {
      value() {
        holdings.release(this);
        base.notifyOnCancel.call(this);
      },
    },
  };
}

class Holdings {
  readonly #connections: Connections;
  readonly #of = new WeakMap<object, Holding>();

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  /** False if the connection holds too much. */
  addRequest(call: BaseCall, size: number): boolean {
    const { requests, size: count, bounds } = this.#connections;
    const holding = this.#holdingOf(call);
    if (holding === undefined || call.cancelled) {
      return true;
    }
    const { connection } = holding;
    if (requests.refuses(connection.requestBytes, size, count)) {
      bounds.onRefused("request");
      return false;
    }
    holding.requestBytes += size;
    connection.requestBytes += size;
    requests.add(size);
    return true;
  }

  /** False if the connection holds too much. */
  addReply(call: BaseCall, size: number): boolean {
    const { replies, size: count, bounds } = this.#connections;
    const holding = this.#holdingOf(call);
    if (holding === undefined || call.cancelled) {
      return true;
    }
    const { connection } = holding;
    if (replies.refuses(connection.replyBytes, size, count)) {
      bounds.onRefused("reply");
      return false;
    }
    holding.replyBytes += size;
    connection.replyBytes += size;
    replies.add(size);
    return true;
  }

  releaseReply(call: BaseCall, size: number): void {
    const holding = this.#of.get(call);
    if (holding !== undefined) {
      holding.replyBytes -= size;
      holding.connection.replyBytes -= size;
      this.#connections.replies.add(-size);
    }
  }

  /** All that the call holds. */
  release(call: BaseCall): void {
    const holding = this.#of.get(call);
    if (holding !== undefined) {
      this.#of.delete(call);
      const { connection, requestBytes, replyBytes } = holding;
      connection.requestBytes -= requestBytes;
      connection.replyBytes -= replyBytes;
      this.#connections.requests.add(-requestBytes);
      this.#connections.replies.add(-replyBytes);
    }
  }

  /** Runs one decompression of a connection after the other: each may become a thousand times larger. */
  inTurn<T>(call: BaseCall, decompress: () => Promise<T>): Promise<T> {
    const connection = this.#connections.of(sessionOf(call));
    if (connection === undefined) {
      return decompress();
    }
    const turn = connection.decompressing.then(decompress);
    connection.decompressing = turn.catch(() => undefined);
    return turn;
  }

  #holdingOf(call: BaseCall): Holding | undefined {
    const known = this.#of.get(call);
    if (known !== undefined) {
      return known;
    }
    const connection = this.#connections.of(sessionOf(call));
    if (connection === undefined) {
      return undefined;
    }
    const holding = { connection, requestBytes: 0, replyBytes: 0 };
    this.#of.set(call, holding);
    return holding;
  }
}

/** Of a stream that was destroyed there is none, whatever the types say. */
function sessionOf({ stream }: BaseCall): ServerHttp2Session | undefined {
  return stream.session as ServerHttp2Session | undefined;
}
