import { type Stats, statSync } from "node:fs";

/** How often files are looked at. A rotated secret serves after this, without a signal. */
const intervalMs = 2_000;

/**
 * Tells when files have changed, also by being replaced (as Kubernetes replaces secrets, by a link).
 * Looks, rather than listens: file events get lost on network and overlay file systems.
 */
export class FileWatch {
  readonly #files: readonly string[];
  readonly #onChange: () => void;
  readonly #timer: NodeJS.Timeout;
  #seen: string;

  /** Begins at once. @param onChange Must not throw. */
  constructor(files: readonly string[], onChange: () => void) {
    this.#files = files;
    this.#onChange = onChange;
    this.#seen = this.#look();
    this.#timer = setInterval(() => this.check(), intervalMs).unref();
  }

  /** Looks now. */
  check(): void {
    const seen = this.#look();
    if (seen !== this.#seen) {
      this.#seen = seen;
      this.#onChange();
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): string {
    return this.#files.map((file) => stampOf(file)).join("\n");
  }
}

function stampOf(file: string): string {
  try {
    const { mtimeMs, ctimeMs, size, ino }: Stats = statSync(file);
    return [mtimeMs, ctimeMs, size, ino].join(" ");
  } catch {
    return "absent";
  }
}
