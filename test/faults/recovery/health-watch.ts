import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, type ClientReadableStream, credentials } from "@grpc/grpc-js";
import { expect } from "vitest";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../../src/gen/health/v1/health_pb.ts";

type Status = keyof typeof ServingStatus;

interface Change {
  readonly status: Status;
  /** On the clock of `performance.now()`. */
  readonly at: number;
}

function nameOf(status: ServingStatus): Status {
  const [name] = Object.entries(ServingStatus).find(([, value]) => value === status) ?? [];
  return name as Status;
}

/** An open grpc.health.v1 Watch, and what it said when. */
export class HealthWatch implements Disposable {
  readonly #client: Client;
  readonly #call: ClientReadableStream<Buffer>;
  readonly #changes: Change[] = [];

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
    const request = toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, {}));
    this.#call = this.#client.makeServerStreamRequest(
      `/${Health.typeName}/${Health.method.watch.name}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.from(request),
    );
    this.#call.on("error", () => undefined);
    this.#call.on("data", (bytes: Buffer) => {
      const { status } = fromBinary(HealthCheckResponseSchema, bytes);
      this.#changes.push({ status: nameOf(status), at: performance.now() });
    });
  }

  get status(): Status | undefined {
    return this.#changes.at(-1)?.status;
  }

  /** What it said since a moment. */
  since(at: number): Status[] {
    return this.#changes.filter((change) => change.at >= at).map(({ status }) => status);
  }

  /**
   * Waits until it says so, and returns how many milliseconds after a moment it first did: 0 if it had
   * before.
   */
  async says(status: Status, after: number): Promise<number> {
    await expect.poll(() => this.status, { timeout: 30_000, interval: 10 }).toBe(status);
    const first = this.#changes.find((change) => change.status === status && change.at >= after);
    return first === undefined ? 0 : first.at - after;
  }

  [Symbol.dispose](): void {
    this.#call.cancel();
    this.#client.close();
  }
}
