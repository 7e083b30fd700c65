/** What the buffer has when it is new, and doesn't keep when it had to have more. */
const usualBytes = 64 * 1024;
/** Texts up to it are written character by character, if they are ASCII: calling into Node costs more. */
const shortText = 40;
/** Of how many characters a text's bytes are counted before there is made room for them, not guessed. */
const longText = 4096;
const maxBytesOfCharacter = 3;
/** A number of 64 bits takes so many, at most. */
const maxVarintBytes = 10;

/** Writes a message's fields, without its length. */
export type Write<M> = (message: M, output: WireOutput) => void;

/** Where messages are written. */
let shared: WireOutput | undefined;

/** A message's bytes, which are nobody else's. */
export function encode<M>(write: Write<M>, message: M): Buffer {
  const output = shared ?? new WireOutput();
  // Not to be used by another message if this one can't be written.
  shared = undefined;
  write(message, output);
  const bytes = output.take();
  shared = output;
  return bytes;
}

/**
 * Where replies are written to, in one pass, by the functions that scripts/protoc-gen-codec.js makes: a buffer that grows and
 * is used again, and a place in it. Values come with their fields' tags, of one byte.
 */
export class WireOutput {
  #buffer = Buffer.allocUnsafeSlow(usualBytes);
  #end = 0;

  /** What was written, which is nobody else's. */
  take(): Buffer {
    const written = this.#buffer.subarray(0, this.#end);
    this.#end = 0;
    if (this.#buffer.length === usualBytes) {
      const copy = Buffer.allocUnsafe(written.length);
      written.copy(copy);
      return copy;
    }
    this.#buffer = Buffer.allocUnsafeSlow(usualBytes);
    return written;
  }

  bool(tag: number, value: boolean): void {
    this.int32(tag, value ? 1 : 0);
  }

  int32(tag: number, value: number): void {
    if (value < 0 || value > 0x7f) {
      this.int64(tag, value);
      return;
    }
    this.#makeRoom(2);
    this.#buffer[this.#end++] = tag;
    this.#buffer[this.#end++] = value;
  }

  /** A negative number is written as its two's complement of 64 bits. */
  int64(tag: number, value: number | bigint): void {
    this.#makeRoom(1 + maxVarintBytes);
    this.#buffer[this.#end++] = tag;
    // A bigint isn't compared with a number: that made serializing entries an eighth slower. Beyond 2^53 it
    // becomes a number that isn't safe either.
    const number = Number(value);
    if (number >= 0 && number <= Number.MAX_SAFE_INTEGER) {
      this.#end = writeVarint(number, this.#buffer, this.#end);
      return;
    }
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 0x7fn) {
      this.#buffer[this.#end++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#buffer[this.#end++] = Number(rest);
  }

  text(tag: number, value: string): void {
    const { length } = value;
    if (length <= shortText && this.#shortAscii(tag, value)) {
      return;
    }
    const bytes = length > longText ? Buffer.byteLength(value) : length * maxBytesOfCharacter;
    const lengthBytes = varintSize(length);
    const start = this.begin(tag, lengthBytes);
    this.#makeRoom(bytes);
    this.#end += this.#buffer.write(value, start);
    this.end(start, lengthBytes);
  }

  /** Begins a message, whose length will take so many bytes or not; returns where its fields start. */
  begin(tag: number, lengthBytes: number): number {
    this.#makeRoom(1 + lengthBytes);
    this.#buffer[this.#end] = tag;
    this.#end += 1 + lengthBytes;
    return this.#end;
  }

  /**
   * Writes the length of what was written since a message began into the bytes left out before it; what
   * was written moves if it takes more of them, or fewer. Returns how many it takes.
   */
  end(start: number, left: number): number {
    const length = this.#end - start;
    const needed = varintSize(length);
    if (needed !== left) {
      this.#makeRoom(maxVarintBytes);
      this.#buffer.copyWithin(start - left + needed, start, this.#end);
      this.#end += needed - left;
    }
    writeVarint(length, this.#buffer, start - left);
    return needed;
  }

  /** False if it isn't ASCII. */
  #shortAscii(tag: number, value: string): boolean {
    const { length } = value;
    this.#makeRoom(length + 2);
    const buffer = this.#buffer;
    const start = this.#end + 2;
    for (let index = 0; index < length; index++) {
      const code = value.charCodeAt(index);
      if (code > 0x7f) {
        return false;
      }
      buffer[start + index] = code;
    }
    buffer[this.#end] = tag;
    buffer[this.#end + 1] = length;
    this.#end = start + length;
    return true;
  }

  #makeRoom(bytes: number): void {
    if (this.#end + bytes > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.#buffer.length, this.#end + bytes));
      this.#buffer.copy(larger, 0, 0, this.#end);
      this.#buffer = larger;
    }
  }
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 0x7f; rest = Math.floor(rest / 0x80)) {
    size += 1;
  }
  return size;
}

/** Writes a whole number from 0 to 2^53 - 1; returns where it ends. */
function writeVarint(value: number, buffer: Buffer, position: number): number {
  let rest = value;
  let end = position;
  // Bits, as long as there are no more than an operator takes.
  while (rest > 0x7fffffff) {
    buffer[end++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  while (rest > 0x7f) {
    buffer[end++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  buffer[end++] = rest;
  return end;
}
