/** Reads what a client sends to PostgreSQL, as far as it names a statement. */
export class StatementsSeen {
  #rest = Buffer.alloc(0);
  #unnamed = "";
  #hasStarted = false;

  /**
   * Takes the next bytes, and tells which prepared statements (by name) and simple queries (by text) they
   * run. A statement without a name has that of the function it calls, as the sidecar's have, or else its
   * text.
   */
  push(bytes: Buffer): string[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const seen: string[] = [];
    for (;;) {
      // The first message has no type.
      const head = this.#hasStarted ? 1 : 0;
      if (this.#rest.length < head + 4) {
        return seen;
      }
      const end = head + this.#rest.readUInt32BE(head);
      if (this.#rest.length < end) {
        return seen;
      }
      const type = this.#hasStarted ? String.fromCharCode(this.#rest[0]!) : "";
      const [first, second] = this.#rest
        .toString("latin1", head + 4, Math.min(end, 1000))
        .split("\0");
      if (type === "P" && first === "") {
        this.#unnamed = /from\s+plugin_sidecar\.(\w+)\(/.exec(second ?? "")?.[1] ?? second ?? "";
      } else if (type === "B" && second !== undefined) {
        seen.push(second || this.#unnamed);
      } else if (type === "Q" && first !== undefined) {
        seen.push(first);
      }
      this.#hasStarted = true;
      this.#rest = this.#rest.subarray(end);
    }
  }
}
