import type { ServerHttp2Stream } from "node:http2";
import type { OutgoingStatus } from "./outgoing-status.ts";

/** A call, as far as it can be ended with a status. */
export interface Answerable {
  sendStatus(status: OutgoingStatus): void;
}

/** Where a stream has its place in its connection's list. */
const place = Symbol("open stream");

/** One open stream of a connection. */
export class OpenStream {
  readonly stream: ServerHttp2Stream;
  /** Its age doesn't matter, or it was ended for it. */
  isSpared = false;
  older: OpenStream | undefined;
  newer: OpenStream | undefined;
  #call: Answerable | undefined;

  constructor(stream: ServerHttp2Stream, older: OpenStream | undefined) {
    this.stream = stream;
    this.older = older;
  }

  /** What answers it; undefined while nothing does. */
  get call(): Answerable | undefined {
    return this.#call;
  }

  answerBy(call: Answerable): void {
    this.#call = call;
  }
}

/** The place of a stream that was added to a list. */
export function openStreamOf(stream: ServerHttp2Stream): OpenStream | undefined {
  return Reflect.get(stream, place) as OpenStream | undefined;
}

/**
 * The open streams of a connection, oldest first.
 *
 * A linked list whose places hold nothing once they have left it: from a Map that is added to and deleted
 * from all the time, V8 keeps what was deleted from being collected while young (docs/performance.md).
 */
export class OpenStreams {
  #oldest: OpenStream | undefined;
  #newest: OpenStream | undefined;

  /** The number of the newest; 0 if none is open. */
  get newestId(): number {
    return this.#newest?.stream.id ?? 0;
  }

  add(stream: ServerHttp2Stream): void {
    const added = new OpenStream(stream, this.#newest);
    if (this.#newest === undefined) {
      this.#oldest = added;
    } else {
      this.#newest.newer = added;
    }
    this.#newest = added;
    Reflect.set(stream, place, added);
    stream.once("close", () => this.#remove(added));
  }

  /** Those up to a number. */
  upTo(id: number): OpenStream[] {
    const found: OpenStream[] = [];
    for (let open = this.#oldest; open !== undefined; open = open.newer) {
      if ((open.stream.id ?? 0) > id) break;
      found.push(open);
    }
    return found;
  }

  #remove(removed: OpenStream): void {
    const { older, newer } = removed;
    if (older === undefined) {
      this.#oldest = newer;
    } else {
      older.newer = newer;
    }
    if (newer === undefined) {
      this.#newest = older;
    } else {
      newer.older = older;
    }
    Reflect.deleteProperty(removed.stream, place);
    removed.older = undefined;
    removed.newer = undefined;
  }
}
