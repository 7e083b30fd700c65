import { StringDecoder } from "node:string_decoder";

/**
 * Cuts a stream of bytes into lines, and never holds more than one of the largest size. What a line
 * has beyond it is dropped, and the line is given as `isCut`.
 */
export class LineSplitter {
  readonly #maxChars: number;
  readonly #onLine: (line: string, isCut: boolean) => void;
  readonly #decoder = new StringDecoder("utf8");
  #line = "";
  #isCut = false;

  constructor(maxChars: number, onLine: (line: string, isCut: boolean) => void) {
    this.#maxChars = maxChars;
    this.#onLine = onLine;
  }

  push(bytes: Buffer): void {
    const [first = "", ...rest] = this.#decoder.write(bytes).split("\n");
    this.#add(first);
    for (const part of rest) {
      this.#finish();
      this.#add(part);
    }
  }

  /** The stream has ended: what is left is a line too. */
  end(): void {
    this.#add(this.#decoder.end());
    if (this.#line !== "" || this.#isCut) this.#finish();
  }

  /** Whether the line that is being read is over its size already. */
  get isOverfull(): boolean {
    return this.#isCut;
  }

  #add(text: string): void {
    const room = this.#maxChars - this.#line.length;
    if (text.length > room) this.#isCut = true;
    this.#line += text.slice(0, room);
  }

  #finish(): void {
    const [line, isCut] = [this.#line.replace(/\r$/, ""), this.#isCut];
    this.#line = "";
    this.#isCut = false;
    this.#onLine(line, isCut);
  }
}
