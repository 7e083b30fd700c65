import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type ChannelCredentials, type ChannelOptions, Client, status } from "@grpc/grpc-js";
import {
  Health,
  HealthCheckRequestSchema,
  type HealthCheckResponse,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../gen/health/v1/health_pb.ts";

/** What a sidecar's health service says, or `UNKNOWN` while nobody answers. */
export type HealthStatus = "SERVING" | "NOT_SERVING" | "UNKNOWN";

/** Whose health is watched, and how. */
export interface HealthWatchOptions {
  readonly address: string;
  readonly credentials: ChannelCredentials;
  /** Between two calls of Check, where Watch isn't implemented; and before a lost Watch is renewed. */
  readonly pollMs: number;
  readonly onStatus: (status: HealthStatus) => void;
}

const channelOptions: ChannelOptions = {
  // A sidecar is near: `http_proxy` in the environment is meant for other traffic.
  "grpc.enable_http_proxy": 0,
  // A connection of its own, to the process that serves now.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // A process that hangs answers no ping: its status is UNKNOWN after 15 s at most.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
};

/** A Check that takes longer than this isn't answered. */
const checkTimeoutMs = 5_000;

/** By the host's contract: at a binding's own address this stands for the binding. */
const service = "pluginstate.v1.PluginStateService";
const request = Buffer.from(
  toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })),
);
const asIs = (bytes: Buffer) => bytes;
const parse = (bytes: Buffer) => fromBinary(HealthCheckResponseSchema, bytes);

/** Follows grpc.health.v1 at one address, over any number of connections, until it is closed. */
export class HealthWatch {
  readonly #options: HealthWatchOptions;
  readonly #client: Client;
  readonly #closing = new AbortController();
  #polls = false;

  constructor(options: HealthWatchOptions) {
    this.#options = options;
    const { address, credentials } = options;
    this.#client = new Client(dialled(address), credentials, channelOptions);
    void this.#follow();
  }

  close(): void {
    this.#closing.abort();
    this.#client.close();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      if (this.#polls) await this.#check();
      else await this.#watch();
      if (!signal.aborted) await this.#pause(signal);
    }
  }

  async #pause(signal: AbortSignal): Promise<void> {
    // Only an abort can end it early, and the loop looks.
    await sleep(this.#options.pollMs, undefined, { signal }).catch(() => {});
  }

  #watch(): Promise<void> {
    return new Promise((resolve) => {
      const stream = this.#client.makeServerStreamRequest(
        path(Health.method.watch.name),
        asIs,
        parse,
        request,
      );
      const cancel = () => stream.cancel();
      this.#closing.signal.addEventListener("abort", cancel, { once: true });
      stream.on("data", (answer: HealthCheckResponse) => this.#tell(answer));
      stream.on("error", (error: Error & { code?: number }) => {
        if (error.code === status.UNIMPLEMENTED) this.#polls = true;
        else this.#tell(undefined);
      });
      // After `end` and after `error` alike, once.
      stream.on("close", () => {
        this.#closing.signal.removeEventListener("abort", cancel);
        resolve();
      });
    });
  }

  #check(): Promise<void> {
    return new Promise((resolve) => {
      const call = this.#client.makeUnaryRequest(
        path(Health.method.check.name),
        asIs,
        parse,
        request,
        { deadline: Date.now() + checkTimeoutMs },
        (_error, answer) => {
          this.#closing.signal.removeEventListener("abort", cancel);
          this.#tell(answer);
          resolve();
        },
      );
      const cancel = () => call.cancel();
      this.#closing.signal.addEventListener("abort", cancel, { once: true });
    });
  }

  #tell(answer: HealthCheckResponse | undefined): void {
    if (!this.#closing.signal.aborted) this.#options.onStatus(statusOf(answer));
  }
}

function path(method: string): string {
  return `/${Health.typeName}/${method}`;
}

function statusOf(answer: HealthCheckResponse | undefined): HealthStatus {
  switch (answer?.status) {
    case ServingStatus.SERVING:
      return "SERVING";
    case ServingStatus.NOT_SERVING:
      return "NOT_SERVING";
    default:
      return "UNKNOWN";
  }
}

/** Who listens everywhere is reached here. */
function dialled(address: string): string {
  return address.replace(/^0\.0\.0\.0:/, "127.0.0.1:").replace(/^\[::\]:/, "[::1]:");
}
