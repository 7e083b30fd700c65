/** Random numbers that a seed determines (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to and without `below`, whole. */
  below(below: number): number {
    return Math.floor(this.#next() * below);
  }

  /** True in so many cases of a hundred. */
  percent(percent: number): boolean {
    return this.#next() * 100 < percent;
  }

  oneOf<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** Some of the items, each once, at least one. */
  someOf<T>(items: readonly T[], atMost: number): T[] {
    const left = [...items];
    const count = 1 + this.below(Math.min(atMost, left.length));
    return Array.from({ length: count }, () => left.splice(this.below(left.length), 1)[0]!);
  }

  uuid(): string {
    const hex = Array.from({ length: 32 }, () => this.below(16).toString(16)).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  }
}
