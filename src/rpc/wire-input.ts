/** The bytes are no plain message: protobuf-es is to read them, or to say what is wrong. */
const notPlain = new Error("not plain");

/** Reads the fields of a message that ends there. */
export type Read<M> = (input: WireInput, end: number) => M;

/** The message in some bytes; undefined if they are no plain one, which may be right all the same. */
export function readPlain<M>(read: Read<M>, bytes: Buffer): M | undefined {
  try {
    return read(new WireInput(bytes), bytes.length);
  } catch (error) {
    if (error !== notPlain) throw error;
    return undefined;
  }
}

const moreBytes = 0x80;
/** What the last byte of a number may stand for, at most: numbers have 49 bits. */
const maxFactor = 2 ** 42;
const maxInt32 = 0x7fffffff;

/**
 * Where requests are read from, for the functions that scripts/protoc-gen-codec.js makes. It takes what encoders
 * write: known fields in any order, numbers that are neither negative nor larger than a double is sure
 * of, texts of valid UTF-8, no message field twice. At anything else it gives up.
 */
export class WireInput {
  #bytes: Buffer;
  /** Of the next byte. */
  position = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** A field's tag, if it is of one byte; otherwise one that no field has. */
  tag(): number {
    return this.#bytes[this.position++] ?? moreBytes;
  }

  /** Where the message ends that begins here, in one that ends at `end`. */
  part(end: number): number {
    const length = this.#varint();
    const partEnd = this.position + length;
    if (partEnd > end) this.giveUp();
    return partEnd;
  }

  text(end: number): string {
    const textEnd = this.part(end);
    const start = this.position;
    this.position = textEnd;
    const text = this.#bytes.toString("utf8", start, textEnd);
    // It may have been sent so, or stand for what isn't UTF-8.
    if (text.includes("\ufffd")) this.giveUp();
    return text;
  }

  bool(): boolean {
    return this.#varint() !== 0;
  }

  int32(): number {
    const value = this.#varint();
    if (value > maxInt32) this.giveUp();
    return value;
  }

  int64(): bigint {
    return BigInt(this.#varint());
  }

  /** The end of a message. */
  endAt(end: number): void {
    if (this.position !== end) this.giveUp();
  }

  giveUp(): never {
    throw notPlain;
  }

  #varint(): number {
    let value = this.#bytes[this.position++] ?? moreBytes;
    // Each byte but the last has a bit too many, which the next one takes away.
    for (let factor = moreBytes; value >= factor; factor *= moreBytes) {
      if (factor > maxFactor) this.giveUp();
      value += ((this.#bytes[this.position++] ?? moreBytes) - 1) * factor;
    }
    return value;
  }
}
