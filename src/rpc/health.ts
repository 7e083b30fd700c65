import {
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthListRequestSchema,
  HealthListResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../gen/health/v1/health_pb.ts";
import { bytesMethod, decode, encode } from "./codec.ts";

/** Open Watch calls of a server. Each holds an HTTP/2 stream for as long as it likes. */
const maxWatches = 1_000;

/**
 * A name that is SERVING as long as the process answers, whatever the database does: what a
 * supervisor asks that restarts the sidecar when there is no good answer. (A restart mends no
 * database, and many sidecars would restart at once.)
 */
export const livenessService = "liveness";

const definition = {
  check: bytesMethod(Health.method.check),
  watch: bytesMethod(Health.method.watch),
  list: bytesMethod(Health.method.list),
};

/**
 * grpc.health.v1: whether this process can serve. All services share one status; the empty name
 * stands for the process. It begins as NOT_SERVING. {@link livenessService} is apart: always SERVING.
 * One instance may be added to several servers.
 */
export class HealthService {
  readonly #services: ReadonlySet<string>;
  readonly #watches = new Set<Watch>();
  #status: ServingStatus = ServingStatus.NOT_SERVING;
  #isShutDown = false;

  constructor(services: readonly string[]) {
    this.#services = new Set(["", livenessService, ...services]);
  }

  /** Whether it says SERVING now. */
  get isServing(): boolean {
    return this.#status === ServingStatus.SERVING;
  }

  /** Tells all watches, if it's a change. Does nothing after {@link shutdown}. */
  setServing(serving: boolean): void {
    if (this.#isShutDown) return;
    this.#status = serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    for (const watch of this.#watches) watch.update(this.#statusOf(watch.service));
  }

  /**
   * NOT_SERVING for good. Watches are told and then ended, with OK, since an open one would keep the
   * server from draining; later ones too. Check and List go on answering.
   */
  shutdown(): void {
    this.setServing(false);
    this.#isShutDown = true;
    for (const watch of this.#watches) watch.end();
  }

  addTo(server: Server): void {
    // A server's clients leave those of the others alone.
    const own = new Set<Watch>();
    server.addService(definition, {
      check: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
        answer(done, () => this.#check(call.request)),
      list: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
        answer(done, () => this.#list(call.request)),
      watch: (call: ServerWritableStream<Buffer, Buffer>) => {
        try {
          this.#watch(call, own);
        } catch (error) {
          call.emit("error", error);
        }
      },
    });
  }

  #check(request: Buffer): Buffer {
    const { service } = decode(HealthCheckRequestSchema, request);
    // The name isn't repeated: it may be megabytes, and the message travels in a header.
    if (!this.#services.has(service)) throw failure(status.NOT_FOUND, "There's no such service.");
    return encode(HealthCheckResponseSchema, { status: this.#statusOf(service) });
  }

  #list(request: Buffer): Buffer {
    decode(HealthListRequestSchema, request);
    const statuses = Object.fromEntries(
      [...this.#services].map((service) => [service, { status: this.#statusOf(service) }]),
    );
    return encode(HealthListResponseSchema, { statuses });
  }

  #watch(call: ServerWritableStream<Buffer, Buffer>, own: Set<Watch>): void {
    const { service } = decode(HealthCheckRequestSchema, call.request);
    if (own.size >= maxWatches) {
      throw failure(status.RESOURCE_EXHAUSTED, `There are ${maxWatches} open watches.`);
    }
    // A name that isn't known isn't kept: it may be megabytes.
    const known = this.#services.has(service) ? service : undefined;
    const watch = new Watch(call, known);
    this.#watches.add(watch);
    own.add(watch);
    // grpc-js emits this at the end of every call, however it ended.
    call.once("cancelled", () => {
      this.#watches.delete(watch);
      own.delete(watch);
    });
    watch.update(this.#statusOf(known));
    if (this.#isShutDown) watch.end();
  }

  /** Of a known name, or `undefined` for one that isn't. */
  #statusOf(service: string | undefined): ServingStatus {
    if (service === undefined) return ServingStatus.SERVICE_UNKNOWN;
    return service === livenessService ? ServingStatus.SERVING : this.#status;
  }
}

/** One Watch call. One status is on its way at a time; meanwhile only the latest is remembered. */
class Watch {
  /** The name it watches, or `undefined` if nobody knows it. */
  readonly service: string | undefined;
  readonly #call: ServerWritableStream<Buffer, Buffer>;
  #sent: ServingStatus | undefined;
  #latest: ServingStatus | undefined;
  #isSending = false;

  constructor(call: ServerWritableStream<Buffer, Buffer>, service: string | undefined) {
    this.#call = call;
    this.service = service;
  }

  update(current: ServingStatus): void {
    this.#latest = current;
    if (!this.#isSending) this.#send();
  }

  end(): void {
    this.#send();
    this.#call.end();
  }

  #send(): void {
    const latest = this.#latest;
    if (latest === undefined || latest === this.#sent) return;
    this.#sent = latest;
    this.#isSending = true;
    this.#call.write(encode(HealthCheckResponseSchema, { status: latest }), () => {
      this.#isSending = false;
      this.#send();
    });
  }
}

function answer(done: sendUnaryData<Buffer>, reply: () => Buffer): void {
  try {
    done(null, reply());
  } catch (error) {
    done(error instanceof Error ? error : new Error("unknown"));
  }
}

function failure(code: status, message: string): Error {
  return Object.assign(new Error(message), { code });
}
