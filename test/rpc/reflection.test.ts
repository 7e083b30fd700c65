import { create, createFileRegistry, type DescFile, fromBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { type Client, status } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { file_google_rpc_error_details } from "../../src/gen/google/rpc/error_details_pb.ts";
import {
  type ServerReflectionRequest,
  ServerReflection as V1,
} from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as V1Alpha } from "../../src/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { drain } from "../../src/rpc/listener.ts";
import { addReflection, type Reflection } from "../../src/rpc/reflection.ts";
import { bidiStream, dial, read, start } from "./peers.ts";

type Query = ServerReflectionRequest["messageRequest"];
const { serverReflectionInfo } = V1.method;

async function open(files: DescFile[] = [file_google_rpc_error_details]) {
  let reflection: Reflection | undefined;
  const { server, address } = await start((server) => {
    reflection = addReflection(server, files, ["example.v1.Example"]);
  });
  return { server, client: dial(address), reflection: reflection as Reflection };
}

/** Asks on one stream, in order; ends it, and expects it to end well. */
async function ask(client: Client, ...queries: Query[]) {
  const stream = bidiStream(client, serverReflectionInfo);
  const { next, status: end } = read(stream);
  const answers = [];
  for (const messageRequest of queries) {
    stream.write({ host: "h", messageRequest });
    answers.push(await next());
  }
  stream.end();
  expect(await end).toBe(status.OK);
  return answers.map((answer) => answer.messageResponse);
}

/** The names of the files in an answer, in order. */
function fileNames(answer: Awaited<ReturnType<typeof ask>>[number] | undefined): string[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`got ${answer?.case}`);
  const files = answer.value.fileDescriptorProto;
  return files.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name);
}

test("lists the services named, health and itself", async () => {
  const { client } = await open();
  const [answer] = await ask(client, { case: "listServices", value: "" });
  expect(answer).toMatchObject({
    case: "listServicesResponse",
    value: {
      service: [
        { name: "example.v1.Example" },
        { name: "grpc.health.v1.Health" },
        { name: "grpc.reflection.v1.ServerReflection" },
        { name: "grpc.reflection.v1alpha.ServerReflection" },
      ],
    },
  });
});

describe("a file", () => {
  test.each([
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest.FieldViolation",
    "google.rpc.ErrorInfo.reason",
  ])("is found by its symbol %s, with all it imports after it", async (value) => {
    const { client } = await open();
    const [answer] = await ask(client, { case: "fileContainingSymbol", value });
    expect(fileNames(answer)).toEqual([
      "google/rpc/error_details.proto",
      "google/protobuf/duration.proto",
    ]);
  });

  test.each([
    ["grpc.health.v1.Health", "health/v1/health.proto"],
    ["grpc.health.v1.Health.Watch", "health/v1/health.proto"],
    ["grpc.health.v1.HealthCheckResponse.ServingStatus", "health/v1/health.proto"],
    ["grpc.health.v1.HealthCheckResponse.SERVING", "health/v1/health.proto"],
    [
      "grpc.reflection.v1.ServerReflectionRequest.message_request",
      "grpc/reflection/v1/reflection.proto",
    ],
    ["grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto"],
    ["google.protobuf.Duration", "google/protobuf/duration.proto"],
  ])("of health, reflection or an import is found by its symbol %s", async (value, name) => {
    const { client } = await open();
    const [answer] = await ask(client, { case: "fileContainingSymbol", value });
    expect(fileNames(answer)).toEqual([name]);
  });

  test("is found by its name, an imported one too", async () => {
    const { client } = await open();
    const value = "google/protobuf/duration.proto";
    const [answer] = await ask(client, { case: "fileByFilename", value });
    expect(fileNames(answer)).toEqual([value]);
  });

  test("is found by the extension it declares", async () => {
    const { client } = await open([fileWithExtension()]);
    const extension = { containingType: "test.Extended", extensionNumber: 100 };
    const [file, numbers] = await ask(
      client,
      {
        case: "fileContainingExtension",
        value: { ...extension, $typeName: "grpc.reflection.v1.ExtensionRequest" },
      },
      { case: "allExtensionNumbersOfType", value: "test.Extended" },
    );
    expect(fileNames(file)).toEqual(["test.proto"]);
    expect(numbers?.value).toMatchObject({ baseTypeName: "test.Extended", extensionNumber: [100] });
  });
});

describe("a question without an answer", () => {
  test.each<Query>([
    { case: "fileByFilename", value: "none.proto" },
    { case: "fileContainingSymbol", value: "google.rpc.None" },
    { case: "allExtensionNumbersOfType", value: "google.rpc.None" },
    {
      case: "fileContainingExtension",
      value: {
        $typeName: "grpc.reflection.v1.ExtensionRequest",
        containingType: "google.rpc.ErrorInfo",
        extensionNumber: 1,
      },
    },
  ])("gets NOT_FOUND, and the stream goes on: $case", async (query) => {
    const { client } = await open();
    const answers = await ask(client, query, { case: "listServices", value: "" });
    expect(answers).toMatchObject([
      { case: "errorResponse", value: { errorCode: status.NOT_FOUND } },
      { case: "listServicesResponse" },
    ]);
  });

  test("gets INVALID_ARGUMENT if it isn't there, and the stream goes on", async () => {
    const { client } = await open();
    const answers = await ask(client, { case: undefined }, { case: "listServices", value: "" });
    expect(answers).toMatchObject([
      { case: "errorResponse", value: { errorCode: status.INVALID_ARGUMENT } },
      { case: "listServicesResponse" },
    ]);
  });

  test("ends the stream with INVALID_ARGUMENT if it's no message", async () => {
    const { client } = await open();
    const stream = bidiStream(client, serverReflectionInfo);
    const { status: end } = read(stream);
    stream.write(Buffer.from([0x0a, 0xff]));
    stream.write(Buffer.from([0x0a, 0xff]));
    expect(await end).toBe(status.INVALID_ARGUMENT);
  });
});

test("an answer repeats the host and the request", async () => {
  const { client } = await open();
  const stream = bidiStream(client, serverReflectionInfo);
  const { next } = read(stream);
  const messageRequest = { case: "listServices", value: "*" } as const;
  stream.write({ host: "h", messageRequest });
  expect(await next()).toMatchObject({
    validHost: "h",
    originalRequest: { host: "h", messageRequest },
  });
  stream.end();
});

test("v1alpha is answered alike", async () => {
  const { client } = await open();
  const stream = bidiStream(client, V1Alpha.method.serverReflectionInfo);
  const { next } = read(stream);
  stream.write({ messageRequest: { case: "fileContainingSymbol", value: "google.rpc.Help" } });
  expect(await next()).toMatchObject({ messageResponse: { case: "fileDescriptorResponse" } });
  stream.end();
});

test("a client that asks without reading gets every answer when it reads", async () => {
  const { client } = await open();
  const stream = bidiStream(client, serverReflectionInfo);
  const value = "google/rpc/error_details.proto";
  for (let i = 0; i < 200; i++) stream.write({ messageRequest: { case: "fileByFilename", value } });
  stream.end();
  await new Promise((resolve) => stream.once("metadata", resolve));
  const { seen, status: end } = read(stream);
  expect(await end).toBe(status.OK);
  expect(seen).toHaveLength(200);
});

test("shutdown ends open streams and later ones, so that the server drains", async () => {
  const { client, server, reflection } = await open();
  const before = bidiStream(client, serverReflectionInfo);
  const { next, status: endBefore } = read(before);
  before.write({ messageRequest: { case: "listServices", value: "" } });
  await next();
  reflection.shutdown();
  expect(await endBefore).toBe(status.OK);
  const { status: endAfter } = read(bidiStream(client, serverReflectionInfo));
  expect(await endAfter).toBe(status.OK);
  expect(await drain(server, 10_000)).toBe("drained");
});

function fileWithExtension(): DescFile {
  const file = create(FileDescriptorProtoSchema, {
    name: "test.proto",
    package: "test",
    syntax: "proto2",
    messageType: [{ name: "Extended", extensionRange: [{ start: 100, end: 200 }] }],
    extension: [
      {
        name: "extra",
        extendee: ".test.Extended",
        number: 100,
        label: FieldDescriptorProto_Label.OPTIONAL,
        type: FieldDescriptorProto_Type.STRING,
      },
    ],
  });
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
  return registry.getFile("test.proto") as DescFile;
}
