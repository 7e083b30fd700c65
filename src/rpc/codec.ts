import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import { type MethodDefinition, status } from "@grpc/grpc-js";

/** A request that isn't the message it should be; grpc-js sends it as INVALID_ARGUMENT. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
  readonly code = status.INVALID_ARGUMENT;
}

/** Serializes a message. The Buffer is a view on the bytes that were written, not a copy. */
export function encode<Desc extends DescMessage>(
  desc: Desc,
  init: MessageInitShape<Desc>,
): Buffer<ArrayBuffer> {
  const bytes = toBinary(desc, create(desc, init));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Parses a message; throws {@link MalformedMessage}. Fields of type bytes alias the input. */
export function decode<Desc extends DescMessage>(
  desc: Desc,
  bytes: Uint8Array,
): MessageShape<Desc> {
  try {
    return fromBinary(desc, bytes);
  } catch (cause) {
    throw new MalformedMessage(`The request is not a valid ${desc.typeName}.`, { cause });
  }
}

/**
 * Describes a method whose requests and replies reach the handler as bytes. A parse failure inside
 * grpc-js would be INTERNAL; a handler that decodes can answer INVALID_ARGUMENT.
 */
export function bytesMethod(method: DescMethod): MethodDefinition<Buffer, Buffer> {
  const { methodKind: kind } = method;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: kind === "client_streaming" || kind === "bidi_streaming",
    responseStream: kind === "server_streaming" || kind === "bidi_streaming",
    requestSerialize: asTheyAre,
    requestDeserialize: asTheyAre,
    responseSerialize: asTheyAre,
    responseDeserialize: asTheyAre,
  };
}

function asTheyAre(bytes: Buffer): Buffer {
  return bytes;
}
