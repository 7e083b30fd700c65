import { type DescMessage, fromBinary, type Message, type MessageShape } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

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
 * condition without which it would not have wanted the call.
 *
 * @throws {MalformedRequest} naming the field.
 */
export function decode<I extends DescMessage>(schema: I, bytes: Uint8Array): MessageShape<I> {
  const message = parse(schema, bytes);
  refuseUnknownFields(schema, message, "");
  return message;
}

function parse<I extends DescMessage>(schema: I, bytes: Uint8Array): MessageShape<I> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    const field = findInvalidText(schema, bytes, "");
    throw field === undefined
      ? new MalformedRequest("", `is no well-formed ${schema.typeName}`, { cause })
      : new MalformedRequest(field, "is not valid UTF-8", { cause });
  }
}

function refuseUnknownFields(schema: DescMessage, message: Message, path: string): void {
  const unknown = message.$unknown?.[0];
  if (unknown !== undefined) {
    throw new MalformedRequest(
      `${path}#${unknown.no}`,
      `is a field of ${schema.typeName} that this sidecar doesn't know`,
    );
  }
  for (const field of schema.fields) {
    if (field.fieldKind === "message") {
      // The message was made by this schema: a message field holds a message or nothing.
      const value = (message as unknown as Record<string, Message | undefined>)[field.localName];
      if (value !== undefined) {
        refuseUnknownFields(field.message, value, `${path}${field.name}.`);
      }
    }
  }
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
      if (field.fieldKind === "message") {
        const found = findInvalidText(field.message, content, `${path}${field.name}.`);
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

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
