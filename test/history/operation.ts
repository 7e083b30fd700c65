/**
 * What a recorded history consists of. The checker knows neither gRPC nor SQL: `perform.ts` turns
 * requests into calls and replies into these.
 */

/** A JSON value. Numbers are integers that a double holds exactly: exactness has tests of its own. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [member: string]: Json };

/** What names an entry: a place (scope and namespace, by a name of the workload's) and a key. */
export interface Name {
  readonly place: string;
  readonly key: string;
}

/** An entry as a reply shows it; without a value when only keys were asked for. */
export interface Entry extends Name {
  readonly revision: bigint;
  readonly value?: Json;
}

export type Condition =
  | { readonly kind: "revision"; readonly revision: bigint }
  | { readonly kind: "absent" }
  | { readonly kind: "present" };

export type Change =
  | { readonly kind: "increment"; readonly by: number; readonly max?: number }
  | {
      readonly kind: "append";
      readonly item: Json;
      readonly unique: boolean;
      /** 0: no bound. */
      readonly maxLength: number;
    }
  | { readonly kind: "mergePatch"; readonly patch: Json };

interface WriteOptions {
  readonly name: Name;
  readonly condition?: Condition;
  readonly returnPrevious?: boolean;
}

/** A write of one entry. */
export type Write =
  | (WriteOptions & { readonly do: "set"; readonly value: Json })
  | (WriteOptions & { readonly do: "delete" })
  | (WriteOptions & { readonly do: "update"; readonly change: Change });

export interface Check {
  readonly name: Name;
  readonly condition: Condition;
}

export interface Transact {
  readonly do: "transact";
  readonly checks: readonly Check[];
  readonly operations: readonly Write[];
}

/** The first page of a place's keys. */
export interface List {
  readonly do: "list";
  readonly place: string;
  readonly prefix: string;
  readonly startAfter: string;
  readonly reverse: boolean;
  readonly keysOnly: boolean;
  readonly pageSize: number;
}

export type Read =
  | { readonly do: "get"; readonly name: Name }
  | { readonly do: "batchGet"; readonly names: readonly Name[] }
  | List;

/** A write by plain SQL: its reply doesn't tell its revision. */
export type ForeignWrite =
  | { readonly do: "foreignUpsert"; readonly name: Name; readonly value: Json }
  | { readonly do: "foreignDelete"; readonly name: Name };

/** What an external writer does in one transaction, to different entries. */
export interface ExternalTransaction {
  readonly writes: readonly ForeignWrite[];
  /** How long it stays open after them. */
  readonly heldMs: number;
  readonly isRolledBack: boolean;
}

/** What a sidecar is asked. */
export type ServiceRequest =
  | Read
  | ((Write | Transact) & {
      /** Operations with the same id are attempts at one and the same write. */
      readonly requestId?: string;
    });

export type Request = ServiceRequest | ForeignWrite;

/** What a write of one entry did. */
export type Result =
  | {
      readonly do: "set";
      readonly revision: bigint;
      readonly created: boolean;
      readonly previous?: Entry;
    }
  | {
      readonly do: "delete";
      readonly revision: bigint;
      readonly existed: boolean;
      readonly previous?: Entry;
    }
  | {
      readonly do: "update";
      readonly revision: bigint;
      readonly value: Json;
      readonly created: boolean;
      readonly changed: boolean;
      readonly previous?: Entry;
    };

export type Reply =
  | { readonly do: "get"; readonly revision: bigint; readonly entry: Entry | undefined }
  | {
      readonly do: "batchGet";
      readonly revision: bigint;
      readonly entries: readonly (Entry | undefined)[];
    }
  | {
      readonly do: "list";
      readonly revision: bigint;
      readonly entries: readonly Entry[];
      readonly more: boolean;
    }
  | Result
  | { readonly do: "transact"; readonly revision: bigint; readonly results: readonly Result[] }
  | { readonly do: "foreignUpsert" }
  | { readonly do: "foreignDelete"; readonly existed: boolean };

/** Why nothing was done: a reason as in ErrorInfo, and the revision of the entry that was in the way. */
export interface Refusal {
  readonly reason: string;
  readonly current?: bigint;
  /** Of a Transact: each part that failed. */
  readonly failed?: readonly FailedPart[];
}

export interface FailedPart {
  readonly part: "check" | "operation";
  readonly index: number;
  readonly reason: string;
  readonly current?: bigint;
}

export type Outcome =
  | { readonly kind: "ok"; readonly reply: Reply }
  /** Refused because of what was there. */
  | { readonly kind: "refused"; readonly refusal: Refusal }
  /** Failed with an error which says that nothing was written. */
  | { readonly kind: "notDone"; readonly error: string }
  /** Nobody knows; it may also happen later. */
  | { readonly kind: "unknown"; readonly error: string };

/** One call, with its times by one monotonic clock. */
export interface Recorded {
  readonly id: number;
  readonly client: string;
  readonly invokedAt: number;
  readonly completedAt: number;
  readonly request: Request;
  readonly outcome: Outcome;
}

/** All that was done to one plugin from one moment of rest to another. */
export interface History {
  readonly operations: readonly Recorded[];
  /** The plugin's revision before, when it had no entries. */
  readonly initialRevision: bigint;
  /** The plugin's revision after. */
  readonly finalRevision: bigint;
}

/** One text for each name. */
export function identity({ place, key }: Name): string {
  return `${place}\u0000${key}`;
}

/** Every entry that a reply shows. */
export function entriesIn(outcome: Outcome): Entry[] {
  return outcome.kind === "ok" ? entriesOf(outcome.reply) : [];
}

function entriesOf(reply: Reply): Entry[] {
  switch (reply.do) {
    case "get":
      return reply.entry === undefined ? [] : [reply.entry];
    case "batchGet":
      return reply.entries.filter((entry) => entry !== undefined);
    case "list":
      return [...reply.entries];
    case "transact":
      return reply.results.flatMap(entriesOf);
    case "foreignUpsert":
    case "foreignDelete":
      return [];
    default:
      return reply.previous === undefined ? [] : [reply.previous];
  }
}

/** An operation for a person to read. */
export function describeOperation(operation: Recorded): string {
  const { id, client, invokedAt, completedAt, request, outcome } = operation;
  return `#${id} ${client} [${invokedAt}, ${completedAt}] ${asText(request)} -> ${asText(outcome)}`;
}

/** JSON with revisions as plain numbers. */
export function asText(value: unknown): string {
  return JSON.stringify(value, (_, part) => (typeof part === "bigint" ? Number(part) : part));
}
