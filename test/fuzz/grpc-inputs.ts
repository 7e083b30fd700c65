import type { OutgoingHttpHeaders } from "node:http2";
import { gzipSync } from "node:zlib";
import { create, type DescMessage, toBinary } from "@bufbuild/protobuf";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { PluginStateService as service } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { grpcMessage } from "../rpc/raw-client.ts";
import type { Random } from "./random.ts";

/** A call as no client of ours would make it. */
export interface GrpcInput {
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: Buffer;
  /** Else it is reset after its body. */
  readonly isEnded: boolean;
}

const scope = { kind: ScopeKind.RUN, id: "fuzz" };
const name = { scope, namespace: "n", key: "k" };
const requests: Record<string, Record<string, unknown>> = {
  get: name,
  set: { ...name, valueJson: '{"a": [1, 2.5e3]}', ttl: { seconds: 60n } },
  delete: { ...name, condition: { case: "ifPresent", value: true } },
  update: { ...name, change: { case: "increment", value: { by: "1", max: "9" } } },
  list: { scope, namespace: "n", prefix: "a", pageSize: 9, pageToken: "t" },
  batchGet: { names: [name, name] },
  listScopes: { pageSize: 9 },
  deleteRange: { scope, namespace: "n", prefix: "a" },
  transact: {
    checks: [{ ...name, condition: { case: "ifRevision", value: 1n } }],
    operations: [{ operation: { case: "set", value: { ...name, valueJson: "1" } } }],
  },
};

const methods = service.methods.map((method) => {
  const init = requests[method.localName] ?? {};
  return {
    path: `/${service.typeName}/${method.name}`,
    bytes: toBinary(method.input, create(method.input as DescMessage, init)),
  };
});
const others = [
  { path: "/grpc.health.v1.Health/Check", bytes: Uint8Array.of(0x0a, 1, 0x61) },
  { path: "/grpc.health.v1.Health/List", bytes: new Uint8Array() },
  {
    path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    bytes: Uint8Array.of(0x3a, 0),
  },
  { path: `/${service.typeName}/Nothing`, bytes: new Uint8Array() },
  { path: "//%00", bytes: new Uint8Array() },
];

/** A random call. */
export function grpcInput(random: Random): GrpcInput {
  const { path, bytes } = random.isOneIn(5) ? random.of(others) : random.of(methods);
  return {
    path,
    headers: headersOf(random),
    body: bodyOf(random, bytes),
    isEnded: !random.isOneIn(8),
  };
}

function bodyOf(random: Random, good: Uint8Array): Buffer {
  const message = random.isOneIn(6)
    ? random.bytes(64)
    : random.isOneIn(6)
      ? Buffer.from(good)
      : random.damage(good);
  switch (random.below(12)) {
    case 0:
      return grpcMessage(
        message,
        random.of([0, message.length + 1, 0xffff_ffff, 0x7fff_ffff, 10_000_000]),
      );
    case 1:
      return grpcMessage(message, message.length, random.of([1, 2, 255]));
    case 2: {
      const packed = gzipSync(message);
      const sent = random.isOneIn(2) ? packed : random.damage(packed);
      return grpcMessage(sent, sent.length, 1);
    }
    case 3:
      return Buffer.concat([grpcMessage(message), grpcMessage(good)]);
    case 4:
      return Buffer.concat([grpcMessage(message), random.bytes(9)]);
    case 5:
      return grpcMessage(message).subarray(0, random.below(message.length + 5));
    case 6:
      return Buffer.concat(
        Array.from({ length: 1 + random.below(300) }, () => grpcMessage(Buffer.alloc(0))),
      );
    default:
      return grpcMessage(message);
  }
}

function headersOf(random: Random): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  if (random.isOneIn(6)) {
    headers["grpc-timeout"] = random.of([
      "1S",
      "99999999H",
      "0n",
      "x",
      "-1S",
      "1Hour",
      "100m",
      "5u",
    ]);
  }
  if (random.isOneIn(4)) {
    headers["grpc-encoding"] = random.of(["gzip", "deflate", "br", "identity", "x".repeat(300)]);
  }
  if (random.isOneIn(10)) {
    headers["content-type"] = random.of(["application/grpc+proto", "application/json", "text/x"]);
  }
  if (random.isOneIn(10)) {
    headers[random.of(["a-bin", "b", "grpc-status", "grpc-message", "traceparent"])] = random.of([
      "",
      "?",
      "AAA=",
      "not base64!",
      "13",
      "x".repeat(5_000),
    ]);
  }
  return headers;
}
