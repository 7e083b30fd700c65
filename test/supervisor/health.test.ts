import { create, toBinary } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  status,
} from "@grpc/grpc-js";
import { expect, onTestFinished, test } from "vitest";
import {
  HealthCheckResponseSchema,
  Health as HealthSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../src/gen/health/v1/health_pb.ts";
import { bytesMethod } from "../../src/rpc/codec.ts";
import { Health, type HealthStatus } from "../../src/supervisor/health.ts";

const patient = { timeout: 20_000 };
const options = { credentials: undefined, pollMs: 10 };

/** A server whose health service is ours to play with. */
class PlayedServer {
  readonly server = new Server();
  readonly watches = new Set<ServerWritableStream<Buffer, Buffer>>();
  status: ServingStatus = ServingStatus.SERVING;
  checks = 0;

  constructor(hasWatch: boolean) {
    const check = (
      _call: ServerUnaryCall<Buffer, Buffer>,
      done: (error: null, reply: Buffer) => void,
    ) => {
      this.checks++;
      done(null, this.#reply());
    };
    const watch = (call: ServerWritableStream<Buffer, Buffer>) => {
      this.watches.add(call);
      call.on("cancelled", () => this.watches.delete(call));
      call.write(this.#reply());
    };
    const { check: Check, watch: Watch } = {
      check: bytesMethod(HealthSchema.method.check),
      watch: bytesMethod(HealthSchema.method.watch),
    };
    if (hasWatch) this.server.addService({ check: Check, watch: Watch }, { check, watch });
    else this.server.addService({ check: Check }, { check });
    onTestFinished(() => this.server.forceShutdown());
  }

  listen(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(`127.0.0.1:${port}`),
      );
    });
  }

  say(now: ServingStatus): void {
    this.status = now;
    for (const watch of this.watches) watch.write(this.#reply());
  }

  #reply(): Buffer {
    const message = create(HealthCheckResponseSchema, { status: this.status });
    return Buffer.from(toBinary(HealthCheckResponseSchema, message));
  }
}

function watched(...addresses: string[]): { health: Health; seen: HealthStatus[] } {
  const health = new Health();
  onTestFinished(() => health.forget());
  const seen: HealthStatus[] = [];
  health.onChange((status) => seen.push(status));
  health.watch(
    addresses.map((address) => ({ plugin: "demo", pluginId: "1", address })),
    options,
  );
  return { health, seen };
}

test.each([
  ["watched", true],
  ["asked again and again where it can't be watched", false],
])("health is %s", async (_, hasWatch) => {
  const played = new PlayedServer(hasWatch);
  const { health, seen } = watched(await played.listen());
  await health.until("SERVING");

  played.say(ServingStatus.NOT_SERVING);
  await health.until("NOT_SERVING");
  played.say(ServingStatus.SERVICE_UNKNOWN);
  await health.until("UNKNOWN");
  played.say(ServingStatus.SERVING);
  await health.until("SERVING");

  expect(seen).toEqual(["SERVING", "NOT_SERVING", "UNKNOWN", "SERVING"]);
  if (hasWatch) expect(played.checks).toBe(0);
});

test("a watch that ends is opened again, without a word in between", async () => {
  const played = new PlayedServer(true);
  const { health, seen } = watched(await played.listen());
  await health.until("SERVING");

  const [first] = played.watches;
  first?.end();

  await expect.poll(() => [...played.watches].some((watch) => watch !== first), patient).toBe(true);
  expect(seen).toEqual(["SERVING"]);
});

test("a watch that fails is UNKNOWN until it is answered again", async () => {
  const played = new PlayedServer(true);
  const { health, seen } = watched(await played.listen());
  await health.until("SERVING");

  for (const watch of played.watches) watch.emit("error", { code: status.INTERNAL, details: "" });

  await expect.poll(() => seen, patient).toEqual(["SERVING", "UNKNOWN", "SERVING"]);
});

test("all bindings together are as well as the worst of them", async () => {
  const [one, other] = [new PlayedServer(true), new PlayedServer(true)];
  const { health } = watched(await one.listen(), await other.listen());
  await health.until("SERVING");

  other.say(ServingStatus.NOT_SERVING);
  await health.until("NOT_SERVING");

  expect(health.bindings.map(({ status }) => status)).toEqual(["SERVING", "NOT_SERVING"]);
});

test("waiting for a status ends when its signal aborts, and listeners can leave", async () => {
  const { health } = watched();
  const told: HealthStatus[] = [];
  health.onChange((status) => told.push(status))();

  const waiting = health.until("SERVING", { signal: AbortSignal.timeout(1) });
  await expect(waiting).rejects.toMatchObject({ name: "TimeoutError" });
  await expect(
    health.until("SERVING", { signal: AbortSignal.abort(new Error("no")) }),
  ).rejects.toThrow("no");
  await health.until("UNKNOWN");

  const played = new PlayedServer(true);
  health.watch([{ plugin: "demo", pluginId: "1", address: await played.listen() }], options);
  await health.until("SERVING");
  expect(told).toEqual([]);
});
