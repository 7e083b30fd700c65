import type { DescFile, MessageInitShape } from "@bufbuild/protobuf";
import { type Server, type ServerDuplexStream, status } from "@grpc/grpc-js";
import {
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
  ServerReflection as V1,
} from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as V1Alpha } from "../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health } from "../gen/health/v1/health_pb.ts";
import { bytesMethod, decode, encode } from "./codec.ts";
import { DescriptorIndex, serializeWithImports } from "./descriptor-index.ts";

/** Reflection on one server. */
export interface Reflection {
  /** Ends open streams, with OK, and later ones at once, so that the server can drain. */
  shutdown(): void;
}

/**
 * Adds server reflection, v1 and v1alpha: what grpcurl and its like ask instead of reading .proto
 * files. `files` are those of the services, and any whose messages travel unseen (error details);
 * what they import comes along. Health and reflection itself are always described and listed.
 */
export function addReflection(
  server: Server,
  files: readonly DescFile[],
  listedServices: readonly string[],
): Reflection {
  const always = [Health, V1, V1Alpha];
  const index = new DescriptorIndex([...files, ...always.map((service) => service.file)]);
  const listed = new Set([...listedServices, ...always.map((service) => service.typeName)]);
  const respond = responder(index, [...listed].sort());
  const streams = new ReflectionStreams(respond);
  for (const service of [V1, V1Alpha]) {
    const { serverReflectionInfo } = service.method;
    server.addService(
      { serverReflectionInfo: bytesMethod(serverReflectionInfo) },
      { serverReflectionInfo: (call: Call) => streams.serve(call) },
    );
  }
  return streams;
}

type Call = ServerDuplexStream<Buffer, Buffer>;
type Query = ServerReflectionRequest["messageRequest"];
type Answer = NonNullable<
  MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]
>;

class ReflectionStreams implements Reflection {
  readonly #respond: (request: Buffer) => Buffer;
  readonly #open = new Set<Call>();
  #isShutDown = false;

  constructor(respond: (request: Buffer) => Buffer) {
    this.#respond = respond;
  }

  serve(call: Call): void {
    if (this.#isShutDown) {
      call.end();
      return;
    }
    this.#open.add(call);
    // grpc-js emits this at the end of every call, however it ended.
    call.once("cancelled", () => this.#open.delete(call));
    call.on("data", (request: Buffer) => this.#reply(call, request));
    call.on("end", () => call.end());
  }

  shutdown(): void {
    this.#isShutDown = true;
    for (const call of this.#open) call.end();
  }

  #reply(call: Call, request: Buffer): void {
    if (call.writableEnded) return;
    try {
      if (call.write(this.#respond(request))) return;
      call.pause();
      call.once("drain", () => call.resume());
    } catch (error) {
      call.emit("error", error);
    }
  }
}

/** v1alpha's messages are v1's under another name, so one codec does for both. */
function responder(index: DescriptorIndex, services: string[]): (request: Buffer) => Buffer {
  return (bytes) => {
    const request = decode(ServerReflectionRequestSchema, bytes);
    return encode(ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: request,
      messageResponse: answer(index, services, request.messageRequest),
    });
  };
}

function answer(index: DescriptorIndex, services: string[], query: Query): Answer {
  switch (query.case) {
    case "fileByFilename":
      return fileAnswer(index.named(query.value), "file");
    case "fileContainingSymbol":
      return fileAnswer(index.declaring(query.value), "symbol");
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = query.value;
      return fileAnswer(index.extending(containingType, extensionNumber), "extension");
    }
    case "allExtensionNumbersOfType": {
      const extensionNumber = index.extensionNumbers(query.value);
      if (extensionNumber === undefined) return failure(status.NOT_FOUND, "There's no such type.");
      const value = { baseTypeName: query.value, extensionNumber };
      return { case: "allExtensionNumbersResponse", value };
    }
    case "listServices": {
      const value = { service: services.map((name) => ({ name })) };
      return { case: "listServicesResponse", value };
    }
    case undefined:
      return failure(status.INVALID_ARGUMENT, "The request asks for nothing known here.");
  }
}

function fileAnswer(file: DescFile | undefined, asked: string): Answer {
  if (file === undefined) return failure(status.NOT_FOUND, `There's no such ${asked}.`);
  const fileDescriptorProto = serializeWithImports(file);
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function failure(errorCode: status, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
