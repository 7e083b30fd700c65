import { once } from "node:events";
import { connect } from "node:http2";
import { status } from "@grpc/grpc-js";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  Health,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../src/gen/health/v1/health_pb.ts";
import { decode } from "../../src/rpc/codec.ts";
import { HealthService, livenessService } from "../../src/rpc/health.ts";
import { drain } from "../../src/rpc/listener.ts";
import { dial, read, serverStream, start, unary } from "./peers.ts";

const { check, list, watch } = Health.method;
const { NOT_SERVING, SERVING, SERVICE_UNKNOWN } = ServingStatus;
const notABytesField = Buffer.from([0x0a, 0xff]);

async function open() {
  const health = new HealthService(["example.v1.Example"]);
  const { server, address } = await start((server) => health.addTo(server));
  return { health, server, address, client: dial(address) };
}

describe("Check", () => {
  test("says NOT_SERVING until told otherwise, for the process and for a service", async () => {
    const { health, client } = await open();
    expect(await unary(client, check, {})).toMatchObject({ status: NOT_SERVING });
    health.setServing(true);
    expect(await unary(client, check, {})).toMatchObject({ status: SERVING });
    const service = "example.v1.Example";
    expect(await unary(client, check, { service })).toMatchObject({ status: SERVING });
  });

  test("says SERVING for liveness whatever the process can serve, and while it shuts down", async () => {
    const { health, client } = await open();
    const service = livenessService;
    expect(await unary(client, check, { service })).toMatchObject({ status: SERVING });
    health.shutdown();
    expect(await unary(client, check, { service })).toMatchObject({ status: SERVING });
    expect(await unary(client, check, {})).toMatchObject({ status: NOT_SERVING });
  });

  test("answers NOT_FOUND for a service it doesn't know, however long the name", async () => {
    const { client } = await open();
    const call = unary(client, check, { service: "x".repeat(1 << 20) });
    await expect(call).rejects.toMatchObject({ code: status.NOT_FOUND });
  });

  test("answers INVALID_ARGUMENT for bytes that are no request", async () => {
    const { client } = await open();
    const code = status.INVALID_ARGUMENT;
    await expect(unary(client, check, notABytesField)).rejects.toMatchObject({ code });
    await expect(unary(client, list, notABytesField)).rejects.toMatchObject({ code });
  });
});

test("List names the process and every service", async () => {
  const { health, client } = await open();
  health.setServing(true);
  const { statuses } = await unary(client, list, {});
  expect(Object.keys(statuses).sort()).toEqual(["", "example.v1.Example", "liveness"]);
  expect(statuses["example.v1.Example"]).toMatchObject({ status: SERVING });
});

describe("Watch", () => {
  test("sends the present status at once and then only changes", async () => {
    const { health, client } = await open();
    const { next, seen } = read(serverStream(client, watch, { service: "example.v1.Example" }));
    expect(await next()).toMatchObject({ status: NOT_SERVING });
    health.setServing(true);
    expect(await next()).toMatchObject({ status: SERVING });
    health.setServing(true);
    health.setServing(false);
    expect(await next()).toMatchObject({ status: NOT_SERVING });
    expect(seen).toHaveLength(3);
  });

  test("sends SERVICE_UNKNOWN for an unknown service and stays open", async () => {
    const { health, client } = await open();
    const { next, seen, status: end } = read(serverStream(client, watch, { service: "other" }));
    expect(await next()).toMatchObject({ status: SERVICE_UNKNOWN });
    health.setServing(true);
    await unary(client, check, {});
    expect(seen).toHaveLength(1);
    health.shutdown();
    expect(await end).toBe(status.OK);
  });

  test("gives a slow reader the latest status instead of every one it missed", async () => {
    const { health, address } = await open();
    const slow = await slowWatch(address);
    for (let i = 0; i < 1_001; i++) {
      health.setServing(i % 2 === 0);
      await new Promise(setImmediate);
    }
    slow.startReading();
    await slow.has(SERVING);
    health.shutdown();
    expect(await slow.all).toEqual([NOT_SERVING, SERVING, NOT_SERVING]);
  });

  test("is refused above 1,000, until one of them ends", { timeout: 60_000 }, async () => {
    const { client } = await open();
    const watches = Array.from({ length: 1_000 }, () => serverStream(client, watch, {}));
    const readers = watches.map(read);
    await Promise.all(readers.map((reader) => reader.next()));
    const oneMore = read(serverStream(client, watch, {}));
    expect(await oneMore.status).toBe(status.RESOURCE_EXHAUSTED);
    watches[0]?.cancel();
    expect(await readers[0]?.status).toBe(status.CANCELLED);
    await expect.poll(() => opens(client)).toBe(true);
  });
});

describe("shutdown", () => {
  test("tells watches NOT_SERVING and ends them, so that the server drains", async () => {
    const { health, server, client } = await open();
    health.setServing(true);
    const { next, status: end } = read(serverStream(client, watch, {}));
    expect(await next()).toMatchObject({ status: SERVING });
    health.shutdown();
    expect(await next()).toMatchObject({ status: NOT_SERVING });
    expect(await end).toBe(status.OK);
    expect(await drain(server, 10_000)).toBe("drained");
  });

  test("is for good, and ends later watches as well", async () => {
    const { health, client } = await open();
    health.shutdown();
    health.setServing(true);
    expect(await unary(client, check, {})).toMatchObject({ status: NOT_SERVING });
    const { next, status: end } = read(serverStream(client, watch, {}));
    expect(await next()).toMatchObject({ status: NOT_SERVING });
    expect(await end).toBe(status.OK);
  });
});

test("one HealthService speaks for several servers", async () => {
  const health = new HealthService([]);
  const one = await start((server) => health.addTo(server));
  const two = await start((server) => health.addTo(server));
  const readers = [one, two].map(({ address }) => read(serverStream(dial(address), watch, {})));
  for (const { next } of readers) expect(await next()).toMatchObject({ status: NOT_SERVING });
  health.setServing(true);
  for (const { next } of readers) expect(await next()).toMatchObject({ status: SERVING });
});

async function opens(client: ReturnType<typeof dial>): Promise<boolean> {
  const stream = serverStream(client, watch, {});
  const { next, status: end } = read(stream);
  const opened = await Promise.race([next().then(() => true), end.then(() => false)]);
  stream.cancel();
  return opened;
}

/** A watch by a client whose receive window stays closed until it starts reading. */
async function slowWatch(address: string) {
  const session = connect(`http://${address}`, { settings: { initialWindowSize: 0 } });
  onTestFinished(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": "/grpc.health.v1.Health/Watch",
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.end(Buffer.alloc(5));
  await once(stream, "response");
  let received = Buffer.alloc(0);
  stream.on("data", (chunk) => {
    received = Buffer.concat([received, chunk]);
  });
  return {
    startReading: () => session.settings({ initialWindowSize: 65_535 }),
    has: (status: number) => expect.poll(() => statusesIn(received)).toContain(status),
    all: once(stream, "end").then(() => statusesIn(received)),
  };
}

/** Takes apart gRPC's framing: a flag, four bytes of length, the message. */
function statusesIn(frames: Buffer): number[] {
  const statuses: number[] = [];
  for (let at = 0; at + 5 <= frames.length; ) {
    const end = at + 5 + frames.readUInt32BE(at + 1);
    statuses.push(decode(HealthCheckResponseSchema, frames.subarray(at + 5, end)).status);
    at = end;
  }
  return statuses;
}
