import { EventEmitter } from "node:events";
import {
  type handleUnaryCall,
  type Metadata,
  type Server,
  type ServerInterceptingCall,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import type { OutgoingStatus } from "../rpc/outgoing-status.ts";

type UnaryFunction = handleUnaryCall<Buffer, Buffer>;
type Listener = Parameters<ServerInterceptingCall["start"]>[0];
type Failure = Parameters<sendUnaryData<Buffer>>[0];

/** As much of a handler that a server has registered as is used here. */
interface Handler {
  readonly type: string;
  readonly path: string;
  readonly func: unknown;
}

/**
 * Runs a server's unary handlers, on what the interceptors made of each call.
 *
 * Where grpc-js does so it makes a Writable stream for each call, that nobody writes to, and that since
 * Node 24 keeps the call alive as ended-streams.ts says. Where grpc-js has no such function,
 * it does so as before, and calls are right all the same; a test notices.
 */
export function runUnaryCalls(server: Server): void {
  const original: unknown = Reflect.get(server, "_runHandlerForCall");
  if (typeof original !== "function") {
    return;
  }
  Reflect.set(server, "_runHandlerForCall", (call: ServerInterceptingCall, handler: Handler) => {
    if (handler.type !== "unary") {
      return original.call(server, call, handler);
    }
    call.start(new UnaryCall(call, handler.path, handler.func as UnaryFunction));
    return true;
  });
}

/** One call: what grpc-js tells of it, and what its handler sees of it. */
class UnaryCall extends EventEmitter implements Listener, ServerUnaryCall<Buffer, Buffer> {
  readonly #call: ServerInterceptingCall;
  readonly #path: string;
  readonly #handle: UnaryFunction;
  #request: Buffer | undefined;
  #metadata: Metadata | undefined;
  #isHandled = false;
  cancelled = false;

  constructor(call: ServerInterceptingCall, path: string, handle: UnaryFunction) {
    super();
    this.#call = call;
    this.#path = path;
    this.#handle = handle;
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.#metadata = metadata;
    this.#call.startRead();
  }

  onReceiveMessage(message: Buffer): void {
    if (this.#request === undefined) {
      this.#request = message;
      this.#call.startRead();
    } else {
      this.#refuse("The method takes one request, and a second came");
    }
  }

  onReceiveHalfClose(): void {
    if (this.#request === undefined) {
      this.#refuse("The method takes a request, and none came");
      return;
    }
    this.#isHandled = true;
    try {
      this.#handle(this, (error, reply, trailer) => this.#answer(error, reply, trailer));
    } catch {
      // What went wrong isn't the client's to read.
      this.#answer({});
    }
  }

  onCancel(): void {
    this.cancelled = true;
    if (this.#isHandled) {
      this.emit("cancelled", "cancelled");
    }
  }

  /** Only while it is handled. */
  get request(): Buffer {
    return required(this.#request);
  }

  get metadata(): Metadata {
    return required(this.#metadata);
  }

  getPath() {
    return this.#path;
  }

  sendMetadata(metadata: Metadata) {
    this.#call.sendMetadata(metadata);
  }

  getPeer() {
    return this.#call.getPeer();
  }

  getDeadline() {
    return this.#call.getDeadline();
  }

  getHost() {
    return this.#call.getHost();
  }

  getAuthContext() {
    return this.#call.getAuthContext();
  }

  getMetricsRecorder() {
    return this.#call.getMetricsRecorder();
  }

  #refuse(details: string): void {
    this.#call.sendStatus({ code: status.UNIMPLEMENTED, details, metadata: null });
  }

  #answer(failure: Failure, reply?: Buffer | null, trailer?: Metadata): void {
    if (failure !== null) {
      this.#call.sendStatus(statusOf(failure, trailer));
      return;
    }
    this.#call.sendMessage(reply, () =>
      this.#call.sendStatus({ code: status.OK, details: "OK", metadata: trailer ?? null }),
    );
  }
}

function statusOf(failure: NonNullable<Failure>, trailer?: Metadata): OutgoingStatus {
  const message = "message" in failure ? failure.message : "Unknown error";
  return {
    code: failure.code ?? status.UNKNOWN,
    details: failure.details ?? message,
    metadata: trailer ?? failure.metadata ?? null,
  };
}

function required<T>(value: T | undefined): T {
  if (value === undefined) {
    throw new Error("asked for before it came");
  }
  return value;
}
