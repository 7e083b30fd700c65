import type {
  DescMessage,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type {
  handleUnaryCall,
  Metadata,
  Server,
  ServerUnaryCall,
  ServiceDefinition,
  StatusObject,
} from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { bytesMethod } from "./codec.ts";
import { decode } from "./decode.ts";
import { type Overloaded, plainOverloaded, wasRefused } from "./overloaded.ts";
import type { MethodCodec, ServiceCodec } from "./service-codec.ts";
import { encode } from "./wire-output.ts";

/** What a handler knows of the call beside its request. */
export interface Call {
  /** Aborted when the caller has gone or its deadline has passed: nobody will read the answer. */
  readonly signal: CallSignal;
}

/**
 * As much of an AbortSignal as is asked of a call's. A real one for each call would cost 3 µs, more
 * than all else that is ours in a short one.
 */
export interface CallSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  throwIfAborted(): void;
}

/** An RPC: a request in, a reply out, or a rejection that {@link Ways.toStatus} understands. */
export type UnaryHandler<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  call: Call,
) => Promise<MessageInitShape<O>>;

/** The handlers of a service, by method name in lower camel case. */
export type UnaryHandlers<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? UnaryHandler<I, O>
    : never;
};

/** One finished call, for log and metrics. */
export interface FinishedCall {
  /** The method's name: `Get`. */
  readonly method: string;
  readonly durationMs: number;
  /** What the client was told, or would have been: also when a bound or its own end ended the call. */
  readonly code: status;
  /** What the handler rejected with. */
  readonly error?: unknown;
  /** Of its span, if it has one. */
  readonly traceId?: string | undefined;
}

/** Makes a span of each call; implemented in src/tracing. */
export interface CallTracer {
  /** A call came, with this metadata. */
  start(service: string, method: string, metadata: Metadata): CallSpan;
}

/** The span of one call. */
export interface CallSpan {
  readonly traceId: string;
  /** Runs the handler so that what it causes belongs to the span. */
  run<T>(handle: () => Promise<T>): Promise<T>;
  ended(code: status): void;
}

/** How a service turns errors into statuses and what it tells of its calls. */
export interface Ways {
  readonly toStatus: (error: unknown) => Omit<StatusObject, "metadata"> & Partial<StatusObject>;
  readonly onFinished: (call: FinishedCall) => void;
  /** Told that a call has come; each of them finishes. */
  readonly onStarted?: (() => void) | undefined;
  readonly tracer?: CallTracer | undefined;
  /** What the client of a reply that had no room was told. */
  readonly overloaded?: Overloaded;
  /** How long a call may be open before its connection ends it; without a limit if absent. */
  readonly maxCallMs?: number;
  /** What a call waits for before it is handled; undefined when there's nothing to wait for. */
  readonly waitsFor?: () => Promise<void> | undefined;
}

/** Why {@link Call.signal} aborted. One for all: nobody reads it, and a stack costs 5 µs. */
const callEnded = new Error("the call has ended");

/** What {@link Call.signal} is. */
class CallEnd implements CallSignal {
  readonly #call: ServerUnaryCall<Buffer, Buffer>;
  readonly reason = callEnded;

  constructor(call: ServerUnaryCall<Buffer, Buffer>) {
    this.#call = call;
  }

  /** grpc-js sets it at the end of every call, also of a successful one. */
  get aborted(): boolean {
    return this.#call.cancelled;
  }

  throwIfAborted(): void {
    if (this.aborted) {
      throw this.reason;
    }
  }
}

/** Adds a service whose methods are all unary. */
export function addUnaryService<S extends DescService>(
  server: Server,
  service: S,
  codecs: ServiceCodec<S>,
  handlers: UnaryHandlers<S>,
  ways: Ways,
): void {
  const definition: { -readonly [K in keyof ServiceDefinition]: ServiceDefinition[K] } = {};
  const implementation: Record<string, handleUnaryCall<Buffer, Buffer>> = {};
  for (const method of service.methods) {
    const name = method.localName as keyof S["method"];
    // The mapped types have one of each for each method, of that method's messages.
    const handler = handlers[name] as UnaryHandler<DescMessage, DescMessage>;
    const codec = codecs[name] as MethodCodec<DescMessage, DescMessage>;
    definition[method.localName] = bytesMethod(method);
    implementation[method.localName] = unary(method as DescMethodUnary, codec, handler, ways);
  }
  server.addService(definition, implementation);
}

/**
 * Adapts a handler to grpc-js, which neither awaits it nor survives its rejection. What goes wrong while the
 * reply is encoded is the call's failure like any other.
 */
function unary(
  method: DescMethodUnary,
  { read, write }: MethodCodec<DescMessage, DescMessage>,
  handler: UnaryHandler<DescMessage, DescMessage>,
  {
    toStatus,
    onFinished,
    onStarted,
    tracer,
    waitsFor,
    maxCallMs = Infinity,
    overloaded = plainOverloaded,
  }: Ways,
): handleUnaryCall<Buffer, Buffer> {
  const run = async (bytes: Buffer, signal: CallSignal) => {
    const waiting = waitsFor?.();
    if (waiting !== undefined) {
      await waiting;
      signal.throwIfAborted();
    }
    return encode(write, await handler(decode(method.input, read, bytes), { signal }));
  };
  return (call, callback) => {
    const startedAt = performance.now();
    const openedAt = Date.now();
    onStarted?.();
    const span = tracer?.start(method.parent.typeName, method.name, call.metadata);
    const end = new CallEnd(call);
    const finish = (code: status, error?: unknown) => {
      const durationMs = performance.now() - startedAt;
      onFinished({ method: method.name, durationMs, code, error, traceId: span?.traceId });
      span?.ended(code);
    };
    const gone = () => goneStatus(Math.min(Number(call.getDeadline()), openedAt + maxCallMs));
    const succeed = (reply: Buffer) => {
      const wasGone = end.aborted;
      callback(null, reply);
      if (wasGone) {
        finish(gone().code);
      } else if (wasRefused(reply)) {
        finish(overloaded(call.getPath(), "reply").code ?? status.UNKNOWN);
      } else {
        finish(status.OK);
      }
    };
    const fail = (error: unknown) => {
      const answer = end.aborted ? gone() : toStatus(error);
      callback(answer);
      finish(answer.code, error);
    };
    const handled =
      span === undefined ? run(call.request, end) : span.run(() => run(call.request, end));
    // An answer that can't be sent is nobody else's misfortune.
    handled.then(succeed, fail).catch((error: unknown) => finish(status.INTERNAL, error));
  };
}

/** The status of a call that grpc-js has ended already: for the log, nobody receives it. */
function goneStatus(deadline: number): { code: status; details: string } {
  const isLate = deadline <= Date.now();
  return isLate
    ? { code: status.DEADLINE_EXCEEDED, details: "Deadline exceeded" }
    : { code: status.CANCELLED, details: "Cancelled" };
}
