import {
  constants,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { Metadata, status } from "@grpc/grpc-js";
import { type HeldBounds, HeldBytes } from "./held-bytes.ts";
import { type OpenStream, OpenStreams, openStreamOf } from "./open-streams.ts";
import type { OutgoingStatus } from "./outgoing-status.ts";

/**
 * What a bound kept a client from: `connection`, one too many; `handshake`, a connection that never
 * became one; `age`, a call open too long; `request` and `reply`, too many bytes of them at once;
 * `stream`, one too many long-lived call; `unread`, a connection whose frames nobody reads.
 */
export type Refusal =
  | "connection"
  | "handshake"
  | "age"
  | "request"
  | "reply"
  | "stream"
  | "unread";

/** What bounds the connections of one server, and what they are told. */
export interface ConnectionBounds {
  /** How long a call that isn't a stream of replies may be open. */
  readonly maxCallMs: number;
  /** Open streams of replies on one connection; they may be of any age. */
  readonly maxLongCalls: number;
  /** Of requests that aren't answered. */
  readonly requests: HeldBounds;
  /** Of replies that aren't read. */
  readonly replies: HeldBounds;
  readonly complete: (status: OutgoingStatus) => OutgoingStatus;
  readonly onRefused: (refusal: Refusal) => void;
}

/**
 * Frames that may wait for a client to read them. Its calls are far fewer; only one that resets
 * them and never reads gets there, at 1 KB or so for each.
 */
const maxQueuedFrames = 10_000;

/** How often a call's age is looked at. */
const longestLookMs = 1_000;

/** One connection, and what its client makes us hold. */
export class Connection {
  readonly session: ServerHttp2Session;
  readonly streams = new OpenStreams();
  requestBytes = 0;
  replyBytes = 0;
  longCalls = 0;
  /** The last decompression; the next begins when it has ended. */
  decompressing: Promise<unknown> = Promise.resolve();
  /** The newest stream at some moments, oldest moment first. */
  readonly #newest: { readonly at: number; readonly id: number }[] = [];

  constructor(session: ServerHttp2Session) {
    this.session = session;
  }

  /** Streams that were answered before their request ended: lately, and before the last look. */
  #answered: ServerHttp2Stream[] = [];
  #answeredBefore: ServerHttp2Stream[] = [];

  /**
   * Ends, a little later, the request of a call that was answered before all of it came: a client that
   * never ends it would keep the call for ever. A good client ends it by itself when it sees the answer,
   * and a reset right now would overtake an answer that still waits to be sent.
   */
  closeLater(stream: ServerHttp2Stream): void {
    this.#answered.push(stream);
  }

  closeAnswered(): void {
    for (const stream of this.#answeredBefore) {
      if (!stream.destroyed && !stream.closed) {
        stream.close(constants.NGHTTP2_NO_ERROR);
      }
    }
    this.#answeredBefore = this.#answered;
    this.#answered = [];
  }

  /** Notes the newest open stream; returns the newest of those that are older than `maxMs`. */
  oldest(now: number, maxMs: number): number {
    this.#newest.push({ at: now, id: this.streams.newestId });
    let old = 0;
    while ((this.#newest[0]?.at ?? now) <= now - maxMs) {
      old = this.#newest.shift()?.id ?? 0;
    }
    return old;
  }
}

/**
 * The open connections of one server.
 *
 * A call's age costs the call nothing: once a second the number of each connection's newest stream is
 * noted. Numbers only grow, so every stream up to one that was noted long ago is at least that old.
 */
export class Connections {
  readonly bounds: ConnectionBounds;
  readonly requests: HeldBytes;
  readonly replies: HeldBytes;
  readonly #open = new Map<object, Connection>();
  #timer: NodeJS.Timeout | undefined;

  constructor(bounds: ConnectionBounds) {
    this.bounds = bounds;
    this.requests = new HeldBytes(bounds.requests);
    this.replies = new HeldBytes(bounds.replies);
  }

  get size(): number {
    return this.#open.size;
  }

  /** Looks after every connection of this server from now on. */
  watch(server: Http2Server): void {
    server.on("session", (session) => {
      this.#open.set(session, new Connection(session));
      session.once("close", () => this.#forget(session));
      this.#timer ??= this.#startLooking();
    });
    server.prependListener("stream", (stream: ServerHttp2Stream) => {
      this.of(stream.session)?.streams.add(stream);
    });
  }

  /** The open connections. */
  get sessions(): readonly ServerHttp2Session[] {
    return [...this.#open.values()].map(({ session }) => session);
  }

  /** The connection of a session; undefined when it has closed. */
  of(session: object | undefined): Connection | undefined {
    return session && this.#open.get(session);
  }

  /** Lets a stream be as old as it likes; false if its connection has too many of that kind. */
  admitLong(connection: Connection, stream: ServerHttp2Stream): boolean {
    if (connection.longCalls >= this.bounds.maxLongCalls) {
      return false;
    }
    connection.longCalls += 1;
    spare(stream);
    stream.once("close", () => {
      connection.longCalls -= 1;
    });
    return true;
  }

  #startLooking(): NodeJS.Timeout {
    const everyMs = Math.min(longestLookMs, this.bounds.maxCallMs / 4);
    return setInterval(() => this.#look(), everyMs).unref();
  }

  #forget(session: object): void {
    this.#open.delete(session);
    if (this.#open.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  #look(): void {
    const now = performance.now();
    for (const connection of [...this.#open.values()]) {
      const { session } = connection;
      if (session.destroyed) {
        continue;
      }
      if ((session.state.outboundQueueSize ?? 0) > maxQueuedFrames) {
        this.bounds.onRefused("unread");
        session.destroy();
        continue;
      }
      connection.closeAnswered();
      this.#endOld(connection, connection.oldest(now, this.bounds.maxCallMs));
    }
  }

  #endOld(connection: Connection, newestOld: number): void {
    if (newestOld === 0) {
      return;
    }
    for (const open of connection.streams.upTo(newestOld)) {
      if (!open.isSpared && !open.stream.destroyed && !open.stream.closed) {
        open.isSpared = true;
        this.bounds.onRefused("age");
        this.#end(open);
      }
    }
  }

  /** With a status if no answer is on its way; else by a reset, which frees what waits to be read. */
  #end({ stream, call }: OpenStream): void {
    if (stream.headersSent || call === undefined) {
      stream.close(constants.NGHTTP2_CANCEL);
      return;
    }
    const { maxCallMs } = this.bounds;
    const details = `The call was open for longer than the ${maxCallMs} ms that any may be`;
    call.sendStatus({ code: status.DEADLINE_EXCEEDED, details, metadata: new Metadata() });
  }
}

function spare(stream: ServerHttp2Stream): void {
  const open = openStreamOf(stream);
  if (open !== undefined) open.isSpared = true;
}
