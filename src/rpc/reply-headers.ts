import type {
  OutgoingHttpHeaders,
  ServerHttp2Stream,
  ServerStreamResponseOptions,
} from "node:http2";

/** What stands between node:http2 and nghttp2 for a stream: as much of it as is used here. */
interface Handle {
  respond(headers: unknown, options: unknown): number;
}

interface State {
  flags: number;
}

/** What node did for the headers of one reply, and would do for the same headers of any other. */
interface Learnt {
  /** Where in a stream node keeps its handle, its state and what was sent. */
  readonly keys: { readonly handle: symbol; readonly state: symbol; readonly sent: symbol };
  /** What it noted in the stream. */
  readonly flags: number;
  readonly sent: unknown;
  /** What it told nghttp2. */
  readonly headers: unknown;
  readonly options: unknown;
}

// gRPC has no use for a date; node takes the option, though its types don't say so.
const options: ServerStreamResponseOptions & { sendDate: false } = {
  waitForTrailers: true,
  sendDate: false,
};

/**
 * Sends headers that are the same for each reply.
 *
 * Node checks and joins a reply's headers one by one, every time, for 5 µs of the 60 to 70 that a short
 * call takes. This looks on as it does so once, and tells nghttp2 the same for every stream that follows.
 * Where node works in another way than was looked for, it does all of it itself.
 */
export class ReplyHeaders {
  readonly #headers: OutgoingHttpHeaders;
  #learnt: Learnt | undefined;
  #isNew = true;

  constructor(headers: OutgoingHttpHeaders) {
    this.#headers = headers;
  }

  /** Sends them. Trailers are to follow. */
  send(stream: ServerHttp2Stream): void {
    if (this.#learnt !== undefined && isOpen(stream)) {
      repeat(this.#learnt, stream);
    } else if (this.#isNew && isOpen(stream)) {
      this.#isNew = false;
      this.#learnt = learn(stream, () => stream.respond(this.#headers, options));
    } else {
      stream.respond(this.#headers, options);
    }
  }
}

/** Whether a stream is one that is answered in the usual way: what is wrong with others, node says. */
function isOpen(stream: ServerHttp2Stream): boolean {
  return !stream.destroyed && !stream.closed && !stream.headersSent;
}

function repeat({ keys, flags, sent, headers, options }: Learnt, stream: ServerHttp2Stream): void {
  // Each stream of this process is made like the one that was learnt from.
  const handle = Reflect.get(stream, keys.handle) as Handle;
  const state = Reflect.get(stream, keys.state) as State;
  state.flags |= flags;
  Reflect.set(stream, keys.sent, sent);
  const result = handle.respond(headers, options);
  if (result < 0) {
    stream.destroy(new Error(`headers could not be sent: nghttp2 answered ${result}`));
  }
}

/** Lets node respond, and finds out what it does; undefined if that can't be told. */
function learn(stream: ServerHttp2Stream, respond: () => void): Learnt | undefined {
  const handleKey = keyOf(stream, "kHandle");
  const stateKey = keyOf(stream, "state");
  const handle: unknown = handleKey && Reflect.get(stream, handleKey);
  const state: unknown = stateKey && Reflect.get(stream, stateKey);
  if (handleKey === undefined || stateKey === undefined || !isHandle(handle) || !isState(state)) {
    respond();
    return undefined;
  }
  const told: { headers: unknown; options: unknown }[] = [];
  const flagsBefore = state.flags;
  const original = handle.respond;
  handle.respond = (headers, options) => {
    told.push({ headers, options });
    return original.call(handle, headers, options);
  };
  try {
    respond();
  } finally {
    // Its class has it.
    Reflect.deleteProperty(handle, "respond");
  }
  const sentKey = keyOf(stream, "sent-headers");
  const sent: unknown = sentKey && Reflect.get(stream, sentKey);
  const [once, ...more] = told;
  if (sentKey === undefined || !isRecord(sent) || once === undefined || more.length > 0) {
    return undefined;
  }
  const changes = "date" in sent;
  const keys = { handle: handleKey, state: stateKey, sent: sentKey };
  return changes ? undefined : { keys, flags: state.flags & ~flagsBefore, sent, ...once };
}

function keyOf(stream: object, description: string): symbol | undefined {
  return Object.getOwnPropertySymbols(stream).find((key) => key.description === description);
}

function isHandle(value: unknown): value is Handle {
  return isRecord(value) && typeof value["respond"] === "function";
}

function isState(value: unknown): value is State {
  return isRecord(value) && typeof value["flags"] === "number";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
