/** What the monitor found out about the database. */
export type DatabaseFinding =
  | { readonly serves: true }
  /** `problem`: a sentence, when it answers, but something is wrong with it. */
  | { readonly serves: false; readonly problem: string | undefined };

/** What all bindings of a process know of their database. */
export class DatabaseState {
  #finding: DatabaseFinding = { serves: false, problem: undefined };

  /** Whether it serves. */
  get serves(): boolean {
    return this.#finding.serves;
  }

  /** What is wrong with it, so that no call may be answered from it. */
  get problem(): string | undefined {
    return this.#finding.serves ? undefined : this.#finding.problem;
  }

  /** From now on this holds. */
  set(finding: DatabaseFinding): void {
    this.#finding = finding;
  }
}
