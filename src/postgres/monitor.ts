import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { DatabaseFinding } from "../database-state.ts";
import type { Log } from "../log.ts";
import { ask } from "./ask.ts";
import type { Connection } from "./connection.ts";
import { isCrowded, isDatabaseChanged } from "./errors.ts";
import type { Pool } from "./pool.ts";
import { checkWritable } from "./statements.ts";

/** How often a database that serves is asked. With {@link answerMs} it makes less than 2 s. */
const servesIntervalMs = 500;
/** How often one that doesn't is asked, plus up to half as much again at random. */
const failsIntervalMs = 400;
/** A question that isn't answered after this is asked again, over another connection. */
const hedgeMs = 400;
/** A database from which nothing at all was heard for this long is taken for away. */
const answerMs = 1_200;
/** How often it is looked whether something was heard. */
const lookMs = 100;
/** How long a question may be under way while something is heard. */
const slowMs = 3_000;
/**
 * How long to wait for one that is silent, connection and all: mostly less than two pauses, so that questions
 * that a network swallowed don't hold up the next ones; but always one of them longer, for a slow network.
 */
const quickMs = 800;
const patientMs = 10_000;
/** How many questions in a row may go unanswered while something comes from the database. */
const maxDoubts = 3;
/** Quick questions under way at once, beside a patient one. */
const quickQuestions = 2;

/** What the monitor makes of the answers, or of there being none. */
type Finding =
  | { readonly kind: "serves" }
  /** It answers, but it doesn't take writes, or hasn't our tables. */
  | { readonly kind: "unfit"; readonly why: unknown }
  /** It answers, and is the right one, but something is wrong with it: a sentence. */
  | { readonly kind: "faulty"; readonly problem: string }
  /** It can't be reached. Silent: and doesn't even say so. */
  | { readonly kind: "away"; readonly why: unknown; readonly isSilent: boolean };

/** Nothing at all was heard of the database in time. */
class Silence extends Error {}

/** Something was heard, but no answer. */
class Slowness extends Silence {}

/** `problem`: a sentence that says what is wrong with what the database holds. */
type CheckRow = {
  readonly writable: boolean;
  readonly migrated: boolean;
  readonly problem: string | null;
};

/** What a monitor is given. */
export interface MonitorOptions {
  readonly pool: Pool;
  /** The pool's, to ask over when the pool has given up. */
  readonly connection: Connection;
  readonly log: Log;
  /** Told whether the database serves, at first and when that changes, or the problem does. */
  readonly onChange: (finding: DatabaseFinding) => void;
}

/**
 * Asks the database again and again whether it serves, and tells when that changes. It also tells the
 * pool what to do with its connections: to give them up when the database has fallen silent, to use
 * others when it isn't fit.
 */
export class Monitor {
  readonly #options: MonitorOptions;
  readonly #stopped = new AbortController();
  #last: Finding = { kind: "away", why: undefined, isSilent: false };
  #doubts = 0;
  #loop: Promise<void> | undefined;
  /** Ends the current pause between two questions. */
  #hurry: () => void = () => undefined;
  /** Ends the current question. */
  #giveUp: () => void = () => undefined;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /** Asks for the first time, and goes on. */
  async start(): Promise<void> {
    this.#note(await this.#check());
    this.#loop ??= this.#watch();
  }

  /** Asks at once: somebody's connection failed. */
  suspect(): void {
    if (this.#last.kind === "serves") {
      this.#hurry();
    }
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#hurry();
    this.#giveUp();
    await this.#loop;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.#pause();
      if (signal.aborted) {
        return;
      }
      const isSilent = this.#last.kind === "away" && this.#last.isSilent;
      const finding = isSilent ? await this.#seek() : await this.#check();
      if (!signal.aborted) {
        this.#note(finding);
      }
    }
  }

  /**
   * Asks over the pool's connections, as every call does. A connection that broke or fell silent isn't
   * the whole database: it is asked twice, and while it answers others it isn't away. Nor is one that
   * is slow to answer, while anything comes from it: a connection takes four round trips.
   */
  async #check(): Promise<Finding> {
    const { pool } = this.#options;
    const startedAt = performance.now();
    const isOver = new AbortController();
    // It then rejects as if nothing was heard; nobody takes note.
    this.#giveUp = () => isOver.abort();
    const first = this.#askPool();
    let isFull = false;
    const second = this.#askAgain(first, isOver.signal).catch((why: unknown) => {
      isFull = isCrowded(why);
      throw why;
    });
    try {
      // Both may have been under way when their connections were cut: that isn't the end yet.
      const any = Promise.any([first, second]).catch(() => this.#askPool());
      const finding = await Promise.race([any, this.#silence(isOver.signal)]);
      this.#doubts = 0;
      return finding;
    } catch (why) {
      const wasRefused = pool.refusedAt >= startedAt;
      const isSilent = why instanceof Silence;
      const answersOthers = pool.answeredAt >= startedAt;
      const isThere = why instanceof Slowness ? !wasRefused : isSilent ? isFull : answersOthers;
      this.#doubts += 1;
      if (isThere && this.#doubts <= maxDoubts) {
        return this.#last;
      }
      return { kind: "away", why, isSilent: isSilent && !wasRefused };
    } finally {
      isOver.abort();
    }
  }

  /** Rejects when nothing was heard for a time, or no answer for a longer one. */
  async #silence(signal: AbortSignal): Promise<never> {
    const { pool } = this.#options;
    const startedAt = performance.now();
    let heard = { bytes: pool.bytesRead, at: startedAt };
    for (;;) {
      await sleep(lookMs, undefined, { signal });
      // A process that was held up finds its timers before its answers: these come now.
      await nextTurn();
      await nextTurn();
      const now = performance.now();
      if (pool.bytesRead !== heard.bytes) {
        heard = { bytes: pool.bytesRead, at: now };
      }
      if (now - heard.at >= answerMs) {
        throw new Silence(`nothing was heard in ${answerMs} ms`);
      }
      if (now - startedAt >= slowMs) {
        throw new Slowness(`no answer in ${slowMs} ms`);
      }
    }
  }

  async #askPool(): Promise<Finding> {
    return await findingOf(async () => {
      const [row] = await this.#options.pool.run<CheckRow>(checkWritable, []);
      return row;
    });
  }

  /**
   * When the first question failed, or is late. While the pool can't open connections, that one may only
   * wait behind a call: then the server is asked for a connection beside the pool's. Its "no" is an answer too.
   */
  async #askAgain(first: Promise<Finding>, signal: AbortSignal): Promise<Finding> {
    const failed = new Promise<void>((resolve) => first.catch(() => resolve()));
    await Promise.race([failed, sleep(hedgeMs, undefined, { signal })]);
    const { pool, connection } = this.#options;
    return pool.isCrowded
      ? await findingOf(() =>
          ask<CheckRow>(connection, checkWritable, { withinMs: answerMs, signal }),
        )
      : await this.#askPool();
  }

  /** Asks until there is an answer, each time over a new connection to wherever the name leads by then. */
  async #seek(): Promise<Finding> {
    const isOver = new AbortController();
    const { signal } = isOver;
    const asked = { quick: 0, patient: 0 };
    let finding: Finding | undefined;
    const start = (kind: keyof typeof asked, withinMs: number) => {
      asked[kind] += 1;
      findingOf(() => ask<CheckRow>(this.#options.connection, checkWritable, { withinMs, signal }))
        .then((found) => {
          finding ??= found;
          this.#hurry();
        })
        .catch((error: unknown) => this.#options.log.debug({ err: error }, "still away"))
        .finally(() => {
          asked[kind] -= 1;
        });
    };
    while (finding === undefined && !this.#stopped.signal.aborted) {
      if (asked.patient === 0) {
        start("patient", patientMs);
      } else if (asked.quick < quickQuestions) {
        start("quick", quickMs);
      }
      await this.#pause();
    }
    isOver.abort();
    // What was doubted before the silence says nothing about the database that answers now.
    this.#doubts = 0;
    return finding ?? this.#last;
  }

  #note(finding: Finding): void {
    const { pool } = this.#options;
    const before = this.#last;
    const { kind } = finding;
    this.#last = finding;
    if (finding.kind === "away" && finding.isSilent) {
      pool.giveUp();
    } else {
      pool.resume();
      if (kind === "unfit" || before.kind !== kind) {
        pool.retire();
      }
    }
    if (!isAlike(finding, before)) {
      this.#tell(finding);
    }
  }

  #tell(finding: Finding): void {
    const { log, onChange } = this.#options;
    switch (finding.kind) {
      case "serves":
        log.info("the database serves");
        onChange({ serves: true });
        break;
      case "faulty":
        log.error({ problem: finding.problem }, `the database doesn't serve: ${finding.problem}`);
        onChange({ serves: false, problem: finding.problem });
        break;
      default:
        log.warn({ err: finding.why }, "the database doesn't serve");
        onChange({ serves: false, problem: undefined });
    }
  }

  async #pause(): Promise<void> {
    const isServing = this.#last.kind === "serves";
    const ms = isServing ? servesIntervalMs : failsIntervalMs * (1 + Math.random() / 2);
    const hurry = new AbortController();
    this.#hurry = () => hurry.abort();
    if (this.#stopped.signal.aborted) {
      return;
    }
    await sleep(ms, undefined, { signal: hurry.signal }).catch(() => undefined);
  }
}

/** What an answer means. One that says that it hasn't what was asked for is an answer too. */
async function findingOf(question: () => Promise<CheckRow | undefined>): Promise<Finding> {
  let row: CheckRow | undefined;
  try {
    row = await question();
  } catch (why) {
    if (isDatabaseChanged(why)) {
      return { kind: "unfit", why };
    }
    throw why;
  }
  if (row?.migrated !== true) {
    return { kind: "unfit", why: new Error("the database hasn't the sidecar's tables") };
  }
  if (!row.writable) {
    return { kind: "unfit", why: new Error("the database is read-only") };
  }
  if (row.problem !== null) {
    return { kind: "faulty", problem: row.problem };
  }
  return { kind: "serves" };
}

/** Whether nobody needs to be told of the second after the first. */
function isAlike(one: Finding, other: Finding): boolean {
  return one.kind === "faulty" && other.kind === "faulty"
    ? one.problem === other.problem
    : one.kind === other.kind;
}
