import {
  type DescField,
  type DescMessage,
  fromBinary,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type Read, readPlain } from "./wire-input.ts";

/** A request's bytes aren't the message its method takes, or hold a field we don't know. */
export class MalformedRequest extends Error {
  override readonly name = "MalformedRequest";
  /** The field's path, as far as it can be told; empty for the message itself. */
  readonly field: string;
  /** What is wrong, without content, to follow the path. */
  readonly problem: string;

  constructor(field: string, problem: string, options?: ErrorOptions) {
    super(`${field || "the request"} ${problem}`, options);
    this.field = field;
    this.problem = problem;
  }
}

/**
 * Decodes a request.
 *
 * A field that isn't in our proto is refused: it comes from a newer client, and may be the very
 * condition without which it would not have wanted the call. So is one of another wire type, which
 * protobuf-es would read as if it were of its own.
 *
 * @throws {MalformedRequest} naming the field.
 */
export function decode<I extends DescMessage>(
  schema: I,
  read: Read<MessageShape<I>>,
  bytes: Buffer,
): MessageShape<I> {
  return readPlain(read, bytes) ?? decodeAny(schema, bytes);
}

/** As {@link decode}, of whatever is no plain message. */
function decodeAny<I extends DescMessage>(schema: I, bytes: Buffer): MessageShape<I> {
  try {
    refuseUnknownFields(schema, new BinaryReader(bytes), bytes.length, "");
    return fromBinary(schema, bytes);
  } catch (cause) {
    if (cause instanceof MalformedRequest) {
      throw cause;
    }
    const field = findInvalidText(schema, bytes, "");
    throw field === undefined
      ? new MalformedRequest("", `is no well-formed ${schema.typeName}`, { cause })
      : new MalformedRequest(field, "is not valid UTF-8", { cause });
  }
}

/** Reads the fields of a message up to an end, and of the messages in it. */
function refuseUnknownFields(
  schema: DescMessage,
  reader: BinaryReader,
  end: number,
  path: string,
): void {
  const known = fieldsOf(schema);
  let lists: Map<number, number> | undefined;
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const field = known.get(number);
    if (field === undefined) {
      const problem = `is a field of ${schema.typeName} that this sidecar doesn't know`;
      throw new MalformedRequest(`${path}#${number}`, problem);
    }
    if (wireType !== field.wireType) {
      throw new MalformedRequest(`${path}${field.name}`, "is of another wire type");
    }
    if (field.part === undefined) {
      reader.skip(wireType, number);
      continue;
    }
    let place = field.name;
    if (field.isList) {
      lists ??= new Map();
      const index = lists.get(number) ?? 0;
      lists.set(number, index + 1);
      place = `${place}[${index}]`;
    }
    const partEnd = reader.uint32() + reader.pos;
    if (partEnd > end) {
      throw new RangeError("a message is cut short");
    }
    refuseUnknownFields(field.part, reader, partEnd, `${path}${place}.`);
  }
  if (reader.pos !== end) {
    throw new RangeError("a field reaches beyond its message");
  }
}

/** What a field's bytes must be. */
interface Field {
  readonly name: string;
  readonly wireType: WireType;
  /** Of a field that holds messages. */
  readonly part: DescMessage | undefined;
  readonly isList: boolean;
}

const fields = new WeakMap<DescMessage, ReadonlyMap<number, Field>>();

/** The fields of a message by number. Found once: this is asked for every request. */
function fieldsOf(schema: DescMessage): ReadonlyMap<number, Field> {
  let found = fields.get(schema);
  if (found === undefined) {
    found = new Map(schema.fields.map((field) => [field.number, fieldOf(field)]));
    fields.set(schema, found);
  }
  return found;
}

/** Of the types that our requests have: messages, text, and numbers of varying length. */
function fieldOf(field: DescField): Field {
  const part = messageOf(field);
  const isText = field.fieldKind === "scalar" && field.scalar === ScalarType.STRING;
  return {
    name: field.name,
    wireType: part !== undefined || isText ? WireType.LengthDelimited : WireType.Varint,
    part,
    isList: field.fieldKind === "list",
  };
}

/** The path of the first string field that isn't UTF-8; undefined if that isn't what is wrong. */
function findInvalidText(schema: DescMessage, bytes: Uint8Array, path: string): string | undefined {
  try {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      const field = schema.fields.find((candidate) => candidate.number === number);
      if (wireType !== WireType.LengthDelimited || field === undefined) {
        reader.skip(wireType, number);
        continue;
      }
      const content = reader.bytes();
      const part = messageOf(field);
      if (part !== undefined) {
        const found = findInvalidText(part, content, `${path}${field.name}.`);
        if (found !== undefined) {
          return found;
        }
      } else if (field.fieldKind === "scalar" && !isUtf8(content)) {
        return `${path}${field.name}`;
      }
    }
  } catch {
    // Cut short or otherwise broken: no single field is to blame.
  }
  return undefined;
}

function messageOf(field: DescField): DescMessage | undefined {
  const holdsMessages =
    field.fieldKind === "message" || (field.fieldKind === "list" && field.listKind === "message");
  return holdsMessages ? field.message : undefined;
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
