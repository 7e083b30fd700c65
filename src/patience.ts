import { setTimeout as sleep } from "node:timers/promises";

/** Something that is waited for, but not for ever. */
export class Patience {
  /** Settles when it has come, or was waited for long enough. */
  readonly over: Promise<void>;
  /** It has come. */
  end: () => void = () => undefined;

  /** @param ms For how long, from now on. Doesn't keep the process running. */
  constructor(ms: number) {
    const ended = new Promise<void>((resolve) => {
      this.end = resolve;
    });
    this.over = Promise.race([ended, sleep(ms, undefined, { ref: false })]);
  }
}
