/** Random choices that a seed decides. */
export class Random {
  #state: number;

  /** @param stream Of many sequences of one seed, which; each is the same whatever becomes of the others. */
  constructor(seed: number, stream = 0) {
    this.#state = (seed ^ Math.imul(stream, 0x9e37_79b1)) >>> 0;
  }

  /** From 0 up to but not including `bound`. */
  below(bound: number): number {
    // Mulberry32.
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  }

  isOneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  bytes(maxLength: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(maxLength + 1) }, () => this.below(256)));
  }

  /** The bytes after one to four small accidents. */
  damage(bytes: Uint8Array): Buffer {
    let damaged = Buffer.from(bytes);
    for (let times = 1 + this.below(4); times > 0; times--) {
      const at = this.below(damaged.length + 1);
      const removed = this.of([0, 0, 1, 1, 2, 8]);
      damaged = Buffer.concat([
        damaged.subarray(0, at),
        this.isOneIn(2) ? this.bytes(4) : this.of(splinters),
        damaged.subarray(at + removed),
      ]);
    }
    return damaged;
  }
}

/** What parsers stumble over: numbers without end, huge lengths, groups, surrogates, U+0000. */
const splinters = [
  [],
  [0x00],
  [0x0b],
  [0x0c],
  [0xff, 0xff, 0xff, 0xff, 0x0f],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
  [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
  [0xed, 0xa0, 0x80],
  [0x7f, 0xff, 0xff, 0xff],
].map((bytes) => Buffer.from(bytes));
