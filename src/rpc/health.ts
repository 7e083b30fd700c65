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
/** A longer name is nobody's, nor will be. */
const maxNameLength = 1_024;

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

/** On one server: names that stand for others there. */
type Aliases = ReadonlyMap<string, string>;

/**
 * grpc.health.v1: whether this process can serve, and which parts of it do. The empty name stands for the
 * process, and so do the services it is made with. It begins as NOT_SERVING. {@link livenessService} is
 * apart: always SERVING. One instance may be added to several servers.
 */
export class HealthService {
  /** The process's status, by every name that stands for it. */
  readonly #ofProcess: ReadonlySet<string>;
  readonly #watches = new Set<Watch>();
  #isServing = false;
  #parts: ReadonlyMap<string, boolean> = new Map();
  #isShutDown = false;

  constructor(services: readonly string[]) {
    this.#ofProcess = new Set(["", ...services]);
  }

  /** Whether it says SERVING now, for the process. */
  get isServing(): boolean {
    return this.#isServing;
  }

  /**
   * Tells all watches what is a change to them. Does nothing after {@link shutdown}.
   *
   * @param serving The process's status.
   * @param parts Names that have a status of their own. Others, of before, aren't known any more.
   */
  setServing(serving: boolean, parts: ReadonlyMap<string, boolean> = this.#parts): void {
    if (this.#isShutDown) return;
    this.#isServing = serving;
    this.#parts = parts;
    for (const watch of this.#watches) watch.update(this.#statusOf(watch.service));
  }

  /**
   * NOT_SERVING for good. Watches are told and then ended, with OK, since an open one would keep the
   * server from draining; later ones too. Check and List go on answering.
   */
  shutdown(): void {
    this.setServing(false, new Map([...this.#parts.keys()].map((name) => [name, false])));
    this.#isShutDown = true;
    for (const watch of this.#watches) watch.end();
  }

  /**
   * Answers on a server.
   *
   * @param aliases Names that stand for others on this server alone.
   * @returns What ends the watches of this server, as {@link shutdown} does those of all.
   */
  addTo(server: Server, aliases: Aliases = new Map()): () => void {
    // A server's clients leave those of the others alone.
    const own = new Watches();
    server.addService(definition, {
      check: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
        answer(done, () => this.#check(call.request, aliases)),
      list: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
        answer(done, () => this.#list(call.request, aliases)),
      watch: (call: ServerWritableStream<Buffer, Buffer>) => {
        try {
          this.#watch(call, own, aliases);
        } catch (error) {
          call.emit("error", error);
        }
      },
    });
    return () => own.end();
  }

  #check(request: Buffer, aliases: Aliases): Buffer {
    const { service } = decode(HealthCheckRequestSchema, request);
    const found = this.#statusOf(aliases.get(service) ?? service);
    // The name isn't repeated: it may be megabytes, and the message travels in a header.
    if (found === ServingStatus.SERVICE_UNKNOWN) {
      throw failure(status.NOT_FOUND, "There's no such service.");
    }
    return encode(HealthCheckResponseSchema, { status: found });
  }

  #list(request: Buffer, aliases: Aliases): Buffer {
    decode(HealthListRequestSchema, request);
    // Who has a server of its own isn't told what else there is; it may ask for it by name.
    const parts = aliases.size === 0 ? [...this.#parts.keys()] : [...aliases.values()];
    const names = new Set([...this.#ofProcess, livenessService, ...parts]);
    const statuses = Object.fromEntries(
      [...names].map((name) => [name, { status: this.#statusOf(aliases.get(name) ?? name) }]),
    );
    return encode(HealthListResponseSchema, { statuses });
  }

  #watch(call: ServerWritableStream<Buffer, Buffer>, own: Watches, aliases: Aliases): void {
    const { service } = decode(HealthCheckRequestSchema, call.request);
    if (own.all.size >= maxWatches) {
      throw failure(status.RESOURCE_EXHAUSTED, `There are ${maxWatches} open watches.`);
    }
    // One that isn't known may come to be, but isn't kept when it is megabytes.
    const name = service.length > maxNameLength ? undefined : (aliases.get(service) ?? service);
    const watch = new Watch(call, name);
    this.#watches.add(watch);
    own.all.add(watch);
    // grpc-js emits this at the end of every call, however it ended.
    call.once("cancelled", () => {
      this.#watches.delete(watch);
      own.all.delete(watch);
    });
    watch.update(this.#statusOf(name));
    if (this.#isShutDown || own.haveEnded) watch.end();
  }

  #statusOf(name: string | undefined): ServingStatus {
    if (name === undefined) return ServingStatus.SERVICE_UNKNOWN;
    if (name === livenessService) return ServingStatus.SERVING;
    const serves = this.#ofProcess.has(name) ? this.#isServing : this.#parts.get(name);
    if (serves === undefined) return ServingStatus.SERVICE_UNKNOWN;
    return serves ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
  }
}

/** The Watch calls of one server. */
class Watches {
  readonly all = new Set<Watch>();
  haveEnded = false;

  /** Tells them that it doesn't serve any more, and ends them; later ones too. */
  end(): void {
    this.haveEnded = true;
    for (const watch of this.all) {
      watch.update(ServingStatus.NOT_SERVING);
      watch.end();
    }
  }
}

/** One Watch call. One status is on its way at a time; meanwhile only the latest is remembered. */
class Watch {
  /** The name it watches; `undefined` if it is nobody's. */
  readonly service: string | undefined;
  readonly #call: ServerWritableStream<Buffer, Buffer>;
  #sent: ServingStatus | undefined;
  #latest: ServingStatus | undefined;
  #isSending = false;
  #hasEnded = false;

  constructor(call: ServerWritableStream<Buffer, Buffer>, service: string | undefined) {
    this.#call = call;
    this.service = service;
  }

  update(current: ServingStatus): void {
    if (this.#hasEnded) return;
    this.#latest = current;
    if (!this.#isSending) this.#send();
  }

  end(): void {
    if (this.#hasEnded) return;
    this.#send();
    this.#hasEnded = true;
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
