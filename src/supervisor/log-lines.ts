import { redactSecrets } from "../config/redact.ts";
import { LineSplitter } from "./line-splitter.ts";

/** Of one line that much is handed on, in UTF-16 units. */
const maxLineChars = 8 * 1024;

/** A secret shorter than this isn't looked for: it would be found in ordinary words. */
const minSecretChars = 4;

/** How many lines a second the host is given; the rest is counted and dropped. */
export const maxLinesPerSecond = 1_000;

/** What a sidecar says on stderr, as lines for the host's log: bounded, and without secrets. */
export class LogLines {
  readonly #splitter: LineSplitter;
  readonly #secrets: readonly string[];
  readonly #onLine: (line: string) => void;
  #second = 0;
  #linesOfSecond = 0;
  #dropped = 0;
  #telling: NodeJS.Timeout | undefined;

  constructor(secrets: readonly string[], onLine: (line: string) => void) {
    this.#secrets = secrets.filter((secret) => secret.length >= minSecretChars);
    this.#onLine = onLine;
    this.#splitter = new LineSplitter(maxLineChars, (line, isCut) => this.#line(line, isCut));
  }

  push(bytes: Buffer): void {
    this.#splitter.push(bytes);
  }

  end(): void {
    this.#splitter.end();
    this.#tellDropped();
  }

  #line(line: string, isCut: boolean): void {
    if (!this.#hasRoom()) {
      this.#dropped++;
      // The next line tells it; there may be none for long.
      this.#telling ??= setTimeout(() => this.#tellDropped(), 1_000).unref();
      return;
    }
    this.#tellDropped();
    this.#onLine(this.#redact(isCut ? `${line}…` : line));
  }

  #hasRoom(): boolean {
    const second = Math.floor(performance.now() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#linesOfSecond = 0;
    }
    return this.#linesOfSecond++ < maxLinesPerSecond;
  }

  #tellDropped(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    if (this.#dropped === 0) return;
    const dropped = this.#dropped;
    this.#dropped = 0;
    this.#onLine(`(${dropped} lines of the sidecar's log were dropped: too many at once)`);
  }

  #redact(line: string): string {
    let text = line;
    for (const secret of this.#secrets) text = text.replaceAll(secret, "***");
    return redactSecrets(text);
  }
}
