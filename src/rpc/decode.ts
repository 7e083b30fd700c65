import {
  type DescField,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageShape,
} from "@bufbuild/protobuf";
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
  // The message was made by this schema: its fields hold what the schema says, or nothing.
  const fields = message as unknown as Record<string, unknown>;
  for (const { name, oneof, localName, isList, schema: part } of partsOf(schema)) {
    const value = oneof === undefined ? fields[localName] : chosen(fields[oneof], localName);
    if (isList) {
      for (const [index, item] of (value as Message[]).entries()) {
        refuseUnknownFields(part, item, `${path}${name}[${index}].`);
      }
    } else if (value !== undefined) {
      refuseUnknownFields(part, value as Message, `${path}${name}.`);
    }
  }
}

/** What a oneof holds, if it is this field. */
function chosen(oneof: unknown, localName: string): unknown {
  const { case: name, value } = oneof as { case?: string; value?: unknown };
  return name === localName ? value : undefined;
}

/** A field that holds messages. */
interface Part {
  readonly name: string;
  readonly localName: string;
  readonly oneof: string | undefined;
  readonly isList: boolean;
  readonly schema: DescMessage;
}

const parts = new WeakMap<DescMessage, readonly Part[]>();

/** The fields of a message that hold messages. Found once: this is asked for every request. */
function partsOf(schema: DescMessage): readonly Part[] {
  let found = parts.get(schema);
  if (found === undefined) {
    found = schema.fields.flatMap((field) => {
      const part = messageOf(field);
      const { name, localName, oneof } = field;
      const isList = field.fieldKind === "list";
      return part ? [{ name, localName, oneof: oneof?.localName, isList, schema: part }] : [];
    });
    parts.set(schema, found);
  }
  return found;
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
