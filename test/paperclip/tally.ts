/** What went wrong, in few words, however often it did. */
export class Tally {
  readonly #counts = new Map<string, number>();

  /** Notes an error; PostgreSQL's own words where drizzle has wrapped them. */
  add(error: unknown): void {
    const text = String(error instanceof Error ? (error.cause ?? error) : error);
    this.#counts.set(text, (this.#counts.get(text) ?? 0) + 1);
  }

  /** Each text once, with how often it came. */
  list(): string[] {
    return [...this.#counts].map(([text, count]) => `${count} × ${text}`);
  }
}
