import {
  type DescField,
  type DescMessage,
  type MessageInitShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/**
 * Serializes messages of one type, faster than protobuf-es: a reply of 300 bytes in 2.0 µs instead
 * of 4.5 (bench/encoder.js). It is made once for a type, takes a message's fields as they are, without making a
 * message of them first, and writes into one buffer of the right size.
 *
 * For the field types that our API has: see {@link writerOf}. A test compares it with protobuf-es.
 */
export type Encoder<M> = (message: M) => Buffer;

/** @throws Error for a message with a field of a type it doesn't know. */
export function compileEncoder<D extends DescMessage>(desc: D): Encoder<MessageInitShape<D>> {
  const { size, write } = messageWriter(desc, new Map());
  return (message) => {
    lengths.length = 0;
    nextLength = 0;
    const buffer = Buffer.allocUnsafe(size(message));
    write(message, buffer, 0);
    return buffer;
  };
}

/**
 * The lengths that stand before texts and messages, as `size` found them, for `write`, which comes to
 * them in the same order. One message is written at a time, so there is one list.
 */
const lengths: number[] = [];
let nextLength = 0;

/** How a value is written: how many bytes it takes, and where they end. */
interface Writer {
  readonly size: (value: unknown) => number;
  readonly write: (value: unknown, buffer: Buffer, position: number) => number;
}

type Made = Map<DescMessage, Writer>;
type Fields = Readonly<Record<string, unknown>>;

/** A message's fields, in the order of their numbers. */
function messageWriter(desc: DescMessage, made: Made): Writer {
  const known = made.get(desc);
  if (known !== undefined) {
    return known;
  }
  const fields: Writer[] = [];
  const writer: Writer = {
    size: (message) => {
      let size = 0;
      for (const field of fields) {
        size += field.size(message);
      }
      return size;
    },
    write: (message, buffer, position) => {
      let end = position;
      for (const field of fields) {
        end = field.write(message, buffer, end);
      }
      return end;
    },
  };
  // Before its fields: a message may hold messages of its own type.
  made.set(desc, writer);
  for (const field of [...desc.fields].sort((a, b) => a.number - b.number)) {
    fields.push(fieldWriter(field, made));
  }
  return writer;
}

/** A field of the message it is given, its tag included; nothing if the message doesn't have it. */
function fieldWriter(field: DescField, made: Made): Writer {
  const { localName } = field;
  if (field.fieldKind === "list") {
    return listWriter(field, made);
  }
  if (field.oneof !== undefined) {
    const { localName: oneof } = field.oneof;
    const tagged = taggedWriter(field, made);
    const chosen = (message: unknown) => {
      // A message's shape is its schema's.
      const choice = (message as Fields)[oneof] as { case?: string; value?: unknown } | undefined;
      return choice?.case === localName ? choice.value : undefined;
    };
    return optional(chosen, tagged);
  }
  const tagged = taggedWriter(field, made);
  if (field.fieldKind !== "message" && field.presence === FeatureSet_FieldPresence.IMPLICIT) {
    return optional((message) => {
      const value = (message as Fields)[localName];
      return isZero(value) ? undefined : value;
    }, tagged);
  }
  return optional((message) => (message as Fields)[localName], tagged);
}

function isZero(value: unknown): boolean {
  return value === 0 || value === 0n || value === "" || value === false;
}

function optional(get: (message: unknown) => unknown, { size, write }: Writer): Writer {
  return {
    size: (message) => {
      const value = get(message);
      return value === undefined ? 0 : size(value);
    },
    write: (message, buffer, position) => {
      const value = get(message);
      return value === undefined ? position : write(value, buffer, position);
    },
  };
}

function listWriter(field: DescField & { fieldKind: "list" }, made: Made): Writer {
  if (field.packed) {
    throw new Error(`${field.parent.typeName}.${field.name}: packed fields aren't supported`);
  }
  const { size, write } = taggedWriter(field, made);
  const itemsOf = (message: unknown) =>
    ((message as Fields)[field.localName] ?? []) as readonly unknown[];
  return {
    size: (message) => itemsOf(message).reduce<number>((sum, item) => sum + size(item), 0),
    write: (message, buffer, position) => {
      let end = position;
      for (const item of itemsOf(message)) {
        end = write(item, buffer, end);
      }
      return end;
    },
  };
}

/** A value with its field's tag before it. */
function taggedWriter(field: DescField, made: Made): Writer {
  const { wireType, size, write } = valueWriter(field, made);
  const tag = (field.number << 3) | wireType;
  const tagSize = varintSize(tag);
  return {
    size: (value) => tagSize + size(value),
    write: (value, buffer, position) => write(value, buffer, writeVarint(tag, buffer, position)),
  };
}

interface ValueWriter extends Writer {
  readonly wireType: 0 | 2;
}

function valueWriter(field: DescField, made: Made): ValueWriter {
  if (field.message !== undefined && field.fieldKind !== "map") {
    return delimited(messageWriter(field.message, made));
  }
  if (field.enum !== undefined && field.fieldKind !== "map") {
    return varint;
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return delimited(utf8);
    case ScalarType.BOOL:
      return bool;
    case ScalarType.INT32:
    case ScalarType.INT64:
      return varint;
    default:
      throw new Error(`${field.parent.typeName}.${field.name}: its type isn't supported`);
  }
}

/** A value with its length before it. */
function delimited({ size, write }: Writer): ValueWriter {
  return {
    wireType: 2,
    size: (value) => {
      const place = lengths.push(0) - 1;
      const length = size(value);
      lengths[place] = length;
      return varintSize(length) + length;
    },
    write: (value, buffer, position) =>
      write(value, buffer, writeVarint(lengths[nextLength++] ?? 0, buffer, position)),
  };
}

// Each value is of its field's type.
const utf8: Writer = {
  size: (value) => Buffer.byteLength(value as string),
  write: (value, buffer, position) => position + buffer.write(value as string, position),
};

const bool: ValueWriter = {
  wireType: 0,
  size: () => 1,
  write: (value, buffer, position) => writeVarint(value ? 1 : 0, buffer, position),
};

const varint: ValueWriter = {
  wireType: 0,
  size: (value) => integerSize(value as number | bigint),
  write: (value, buffer, position) => writeInteger(value as number | bigint, buffer, position),
};

function integerSize(value: number | bigint): number {
  return isShort(value) ? varintSize(Number(value)) : Math.ceil(bitsOf(unsigned(value)) / 7);
}

function writeInteger(value: number | bigint, buffer: Buffer, position: number): number {
  if (isShort(value)) {
    return writeVarint(Number(value), buffer, position);
  }
  let rest = unsigned(value);
  let end = position;
  while (rest > 0x7fn) {
    buffer[end++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  buffer[end++] = Number(rest);
  return end;
}

function isShort(value: number | bigint): boolean {
  return value >= 0 && value <= Number.MAX_SAFE_INTEGER;
}

/** As it is written: a negative number as 64 bits. */
function unsigned(value: number | bigint): bigint {
  return BigInt.asUintN(64, BigInt(value));
}

function bitsOf(value: bigint): number {
  return value.toString(2).length;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 0x80)) {
    size += 1;
  }
  return size;
}

/** A whole number from 0 to 2^53 - 1. */
function writeVarint(value: number, buffer: Buffer, position: number): number {
  let rest = value;
  let end = position;
  while (rest > 0x7f) {
    buffer[end++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[end++] = rest;
  return end;
}
