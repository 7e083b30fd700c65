import { once } from "node:events";
import { connect } from "node:http2";
import { Server, type ServerUnaryCall, status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { bytesMethod } from "../../src/rpc/codec.ts";
import { parseListenAddress } from "../../src/rpc/listen-address.ts";
import { listen } from "../../src/rpc/listener.ts";
import { createGrpcServer } from "../../src/rpc/server-options.ts";
import { dial, start, unary } from "./peers.ts";

const { check } = Health.method;
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
const hasResetLimits = major > 22 || (major === 22 && minor >= 11);

test("grpc-js still has the private field through which node:http2 is configured", () => {
  expect(Reflect.get(new Server(), "commonServerOptions")).toBeTypeOf("object");
});

test("a client is told how many calls it may have open", async () => {
  const limits = { maxReceiveBytes: 1_000, maxSendBytes: 1_000, maxConcurrentStreams: 17 };
  const server = createGrpcServer(limits);
  const listener = await listen(server, parseListenAddress("127.0.0.1:0"));
  const session = connect(`http://${listener.address}`);
  const [settings] = await once(session, "remoteSettings");
  expect(settings).toMatchObject({ maxConcurrentStreams: 17 });
  session.destroy();
  await listener.close();
});

test.runIf(hasResetLimits)("1,500 cancelled calls don't cost a client its connection", async () => {
  const arrivals: (() => void)[] = [];
  const neverAnswers = (_call: ServerUnaryCall<Buffer, Buffer>) => arrivals.shift()?.();
  const { listener } = await start((server) =>
    server.addService({ check: bytesMethod(check) }, { check: neverAnswers }),
  );
  const session = connect(`http://${listener.address}`);
  let isClosed = false;
  session.on("error", () => {});
  session.on("close", () => (isClosed = true));
  for (let i = 0; i < 1_500 && !isClosed; i++) {
    const arrived = new Promise<void>((resolve) => arrivals.push(resolve));
    const call = session.request({
      ":method": "POST",
      ":path": "/grpc.health.v1.Health/Check",
      "content-type": "application/grpc",
      te: "trailers",
    });
    call.on("error", () => {});
    call.end(Buffer.alloc(5));
    await Promise.race([arrived, once(call, "close")]);
    call.close(8);
    await once(call, "close");
  }
  await new Promise((resolve, reject) =>
    session.ping((error) => (error ? reject(error) : resolve(0))),
  );
  expect(isClosed).toBe(false);
  session.destroy();
});

test("a request above the limit is RESOURCE_EXHAUSTED", async () => {
  const { address } = await start((server) =>
    server.addService({ check: bytesMethod(check) }, { check: () => {} }),
  );
  const code = status.RESOURCE_EXHAUSTED;
  const request = { service: "x".repeat(5 << 20) };
  await expect(unary(dial(address), check, request)).rejects.toMatchObject({ code });
});
