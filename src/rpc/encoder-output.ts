/** What the buffer has when it is new, and doesn't keep when it had to have more. */
const usualBytes = 64 * 1024;
/** Texts up to it are written character by character, if they are ASCII: calling into Node costs more. */
const shortText = 40;
/** Of how many characters a text's bytes are counted before there is made room for them, not guessed. */
const longText = 4096;
const maxBytesOfCharacter = 3;
/** A number of 64 bits takes so many, at most. */
const maxVarintBytes = 10;

/** Where a message is written: a buffer that grows, and a place in it. */
export class EncoderOutput {
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

  /** A whole number from 0 to 2^53 - 1. */
  varint(value: number): void {
    this.#makeRoom(maxVarintBytes);
    if (value <= 0x7f) {
      this.#buffer[this.#end++] = value;
      return;
    }
    this.#end = writeVarint(value, this.#buffer, this.#end);
  }

  /** A number of 64 bits; a negative one is written as its two's complement. */
  integer(value: number | bigint): void {
    // A bigint isn't compared with a number: that made serializing entries an eighth slower. Beyond 2^53 it
    // becomes a number that isn't safe either.
    const number = Number(value);
    if (number >= 0 && number <= Number.MAX_SAFE_INTEGER) {
      this.varint(number);
      return;
    }
    this.#makeRoom(maxVarintBytes);
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 0x7fn) {
      this.#buffer[this.#end++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#buffer[this.#end++] = Number(rest);
  }

  /** A text with its length before it. */
  text(value: string): void {
    const { length } = value;
    if (length <= shortText && this.#shortAscii(value)) {
      return;
    }
    const bytes = length > longText ? Buffer.byteLength(value) : length * maxBytesOfCharacter;
    this.#makeRoom(bytes + maxVarintBytes);
    const lengthBytes = varintSize(length);
    const start = this.skip(lengthBytes);
    this.#end += this.#buffer.write(value, start);
    this.lengthBefore(start, lengthBytes);
  }

  /** Leaves some bytes out, and says where it goes on. */
  skip(bytes: number): number {
    this.#makeRoom(bytes);
    this.#end += bytes;
    return this.#end;
  }

  /**
   * Writes the length of what was written since a place into the bytes left out before it; what was
   * written moves if it takes more of them, or fewer. Returns how many it takes.
   */
  lengthBefore(start: number, left: number): number {
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
  #shortAscii(value: string): boolean {
    const { length } = value;
    this.#makeRoom(length + 1);
    const buffer = this.#buffer;
    const start = this.#end + 1;
    for (let index = 0; index < length; index++) {
      const code = value.charCodeAt(index);
      if (code > 0x7f) {
        return false;
      }
      buffer[start + index] = code;
    }
    buffer[this.#end] = length;
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
