/**
 * What was acquired, to be released in reverse. Register a release right after what it releases
 * has been acquired; when the start fails half-way, `close` undoes the half that succeeded.
 */
export class Closers {
  readonly #closers: (() => Promise<unknown> | undefined)[] = [];
  #closing: Promise<void> | undefined;

  /** Registers a release. */
  add(close: () => Promise<unknown> | undefined): void {
    this.#closers.push(close);
  }

  /** Releases everything, newest first. Throws the first error, after all have been tried. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const errors: unknown[] = [];
    for (const close of this.#closers.toReversed()) {
      try {
        await close();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) {
      throw errors[0];
    }
  }
}
