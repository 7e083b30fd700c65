import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";

/** What stands between node:http2 and nghttp2 for a stream: as much of it as is used here. */
interface Handle {
  writeBuffer(write: Write, bytes: Buffer): number;
  trailers(headers: unknown): number;
}

/** What node keeps of a write until it is done. */
interface Write {
  buffer?: Buffer;
}

/** What node did to write a message, and would do for any other. */
interface Learnt {
  /** Where in a stream node keeps its handle. */
  readonly key: symbol;
  readonly Write: new () => Write;
}

/**
 * Ends replies whose trailers are the same for each: message and trailers follow the headers in the same
 * packet.
 *
 * Node makes a stream's end known when its last write is done, and sends trailers in a turn after that in
 * which nghttp2 asked for them: a reply is two packets, for each of which a system call is made here, and
 * its client wakes up. This tells nghttp2 at once that nothing follows the message, and the trailers when
 * it asks for them, which it allows. What node tells it is learnt from the first streams. Where node works
 * in another way than was looked for, it does all of it itself.
 */
export class ReplyEnd {
  readonly #trailers: OutgoingHttpHeaders;
  #learnt: Learnt | undefined;
  #isNew = true;
  /** The trailers as node tells nghttp2. */
  #told: unknown;
  /** One for all: it is called on its stream. */
  readonly #onWanted: (this: ServerHttp2Stream) => void;

  constructor(trailers: OutgoingHttpHeaders) {
    this.#trailers = trailers;
    const send = (stream: ServerHttp2Stream) => this.#sendTrailers(stream);
    this.#onWanted = function wanted() {
      send(this);
    };
  }

  /** Sends them, on an open stream whose headers were sent. */
  send(stream: ServerHttp2Stream, message: Buffer): void {
    stream.on("wantTrailers", this.#onWanted);
    if (this.#learnt !== undefined) {
      write(this.#learnt, stream, message);
    } else if (this.#isNew) {
      this.#isNew = false;
      this.#learnt = learn(stream, () => stream.write(message));
    } else {
      stream.write(message);
    }
    // Of what it wrote itself node waits for the end; of the rest it doesn't know.
    stream.end();
  }

  #sendTrailers(stream: ServerHttp2Stream): void {
    if (this.#learnt === undefined) {
      stream.sendTrailers(this.#trailers);
      return;
    }
    const handle = handleOf(this.#learnt, stream);
    if (this.#told === undefined) {
      this.#learnTrailers(handle);
      stream.sendTrailers(this.#trailers);
      return;
    }
    endUnlessSent(stream, "trailers", handle.trailers(this.#told));
  }

  #learnTrailers(handle: Handle): void {
    const original = handle.trailers;
    handle.trailers = (told) => {
      // Its class has it.
      Reflect.deleteProperty(handle, "trailers");
      this.#told = told;
      return original.call(handle, told);
    };
  }
}

function write(learnt: Learnt, stream: ServerHttp2Stream, message: Buffer): void {
  const asked = new learnt.Write();
  // nghttp2 reads from it when there is room for it.
  asked.buffer = message;
  endUnlessSent(stream, "a message", handleOf(learnt, stream).writeBuffer(asked, message));
}

/** Each stream of this process is made like the one that was learnt from. */
function handleOf({ key }: Learnt, stream: ServerHttp2Stream): Handle {
  return Reflect.get(stream, key) as Handle;
}

function endUnlessSent(stream: ServerHttp2Stream, what: string, result: number): void {
  if (result !== 0) {
    stream.destroy(new Error(`${what} could not be sent: nghttp2 answered ${result}`));
  }
}

/** Lets node write, and finds out what it does; undefined if that can't be told. */
function learn(stream: ServerHttp2Stream, letWrite: () => void): Learnt | undefined {
  const key = Object.getOwnPropertySymbols(stream).find(
    ({ description }) => description === "kHandle",
  );
  const handle: unknown = key && Reflect.get(stream, key);
  if (key === undefined || !isHandle(handle)) {
    letWrite();
    return undefined;
  }
  const asked: Write[] = [];
  const original = handle.writeBuffer;
  handle.writeBuffer = (write, bytes) => {
    asked.push(write);
    return original.call(handle, write, bytes);
  };
  try {
    letWrite();
  } finally {
    // Its class has it.
    Reflect.deleteProperty(handle, "writeBuffer");
  }
  const [once, ...more] = asked;
  return once === undefined || more.length > 0
    ? undefined
    : { key, Write: once.constructor as Learnt["Write"] };
}

function isHandle(value: unknown): value is Handle {
  return (
    typeof value === "object" &&
    value !== null &&
    ["writeBuffer", "trailers"].every((name) => typeof Reflect.get(value, name) === "function")
  );
}
