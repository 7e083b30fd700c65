import { expect } from "vitest";
import { type Entry, ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { ListRequest } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { TestClient } from "./client.ts";
import { changed } from "./model-change.ts";
import type { Condition, Operation, Outcome, Transact, Write, WriteReply } from "./operations.ts";

/** Where entries are kept, as a request names it. */
export interface Place {
  readonly scope: { readonly kind: ScopeKind; readonly id: string };
  readonly namespace: string;
}

/** What names an entry in a request. */
export interface Name extends Place {
  readonly key: string;
}

/** A request for the first page of a listing. */
export type Listing = Place & Partial<Omit<ListRequest, keyof Place | "pageToken" | `$${string}`>>;

/** An entry without its times. */
export interface ModelEntry extends Name {
  readonly valueJson: string;
  readonly revision: bigint;
  /** How long it is to live from now on, in whole hours; undefined if it stays. */
  readonly hours?: number;
}

/** How much a plugin may have; 0: as much as it wants. */
export interface Quotas {
  readonly entries: number;
  readonly bytes: number;
}

type Entries = Map<string, ModelEntry>;
type Fault = { readonly reason: string; readonly current: bigint | undefined };

/** What a plugin's state must behave like: a map, and a counter of its writes. */
export class Model {
  revision: bigint;
  readonly #quotas: Quotas;
  #entries: Entries = new Map();

  /** @param revision The plugin's before the first operation, when it has none of the model's entries. */
  constructor(revision = 0n, quotas: Quotas = { entries: 0, bytes: 0 }) {
    this.revision = revision;
    this.#quotas = quotas;
  }

  /** Does an operation, and returns what it answers. */
  apply(operation: Operation): Outcome {
    const draft = new Draft(this.#entries, this.revision);
    const outcome = this.#attempt(operation, draft);
    if (!("refused" in outcome)) {
      this.#entries = draft.entries;
      this.revision = draft.revision;
    }
    return outcome;
  }

  /** What an operation would answer. */
  preview(operation: Operation): Outcome {
    return this.#attempt(operation, new Draft(this.#entries, this.revision));
  }

  /** The entry's revision; undefined when there is none. */
  revisionOf(name: Name): bigint | undefined {
    return this.#entries.get(identity(name))?.revision;
  }

  #attempt(operation: Operation, draft: Draft): Outcome {
    const { revision } = this;
    switch (operation.do) {
      case "set":
      case "delete":
      case "update": {
        const reply = draft.write(operation);
        return "reason" in reply
          ? refusal(reply.reason, currentOf(reply))
          : (this.#overQuota(draft) ?? reply);
      }
      case "transact":
        return this.#transact(operation, draft);
      case "get":
        return { entry: this.#entries.get(identity(operation.name)), revision };
      case "batchGet":
        return {
          found: operation.names.map((name) => this.#entries.get(identity(name))),
          revision,
        };
      case "list": {
        const all = this.list(operation.listing);
        const entries = all.slice(0, operation.listing.pageSize || 100);
        return { entries, more: entries.length < all.length, revision };
      }
    }
  }

  #transact({ checks, operations }: Transact, draft: Draft): Outcome {
    const failedChecks: string[] = [];
    // Nothing will have been done: the entry has the revision it had.
    const note = (part: string, name: Name, reason: string) => {
      const current = this.revisionOf(name);
      failedChecks.push(`${part} ${reason}${current === undefined ? "" : ` at ${current}`}`);
    };
    for (const [index, { name, condition }] of checks.entries()) {
      const fault = draft.fault(name, condition);
      fault && note(`check ${index}`, name, fault.reason);
    }
    const results: WriteReply[] = [];
    for (const [index, operation] of operations.entries()) {
      const reply = draft.write(operation);
      if ("reason" in reply) {
        note(`operation ${index}`, operation.name, reply.reason);
      } else {
        results.push(reply);
      }
    }
    if (failedChecks.length > 0) {
      return refusal("CHECKS_FAILED", {}, failedChecks);
    }
    return this.#overQuota(draft) ?? { results, revision: draft.revision };
  }

  /** The refusal of a draft that has more than it may, and more than there was. */
  #overQuota(draft: Draft): Outcome | undefined {
    const [before, after] = [usage(this.#entries), usage(draft.entries)];
    for (const quota of ["entries", "bytes"] as const) {
      const limit = this.#quotas[quota];
      const asked = after[quota] - before[quota];
      if (limit > 0 && asked > 0 && after[quota] > limit) {
        const metadata = { quota, used: before[quota], asked, limit };
        return refusal("QUOTA_EXCEEDED", metadata);
      }
    }
    return undefined;
  }

  /** Every entry of a listing, in its order. */
  list(listing: Listing): ModelEntry[] {
    const { scope, namespace, reverse, keysOnly } = listing;
    const found = [...this.#entries.values()]
      .filter(
        (entry) => identity({ ...entry, key: "" }) === identity({ scope, namespace, key: "" }),
      )
      .filter(({ key }) => isAskedFor(key, listing))
      .sort((a, b) => compareBytes(a.key, b.key));
    const ordered = reverse ? found.reverse() : found;
    return keysOnly ? ordered.map((entry) => ({ ...entry, valueJson: "" })) : ordered;
  }
}

/** A plugin's state while an operation changes it. */
class Draft {
  readonly entries: Entries;
  revision: bigint;

  constructor(entries: Entries, revision: bigint) {
    this.entries = new Map(entries);
    this.revision = revision;
  }

  /** Why a condition doesn't hold. */
  fault(name: Name, condition: Condition | undefined): Fault | undefined {
    const current = this.entries.get(identity(name))?.revision;
    switch (condition?.case) {
      case undefined:
        return undefined;
      case "ifAbsent":
        return current === undefined ? undefined : { reason: "ENTRY_EXISTS", current };
      case "ifPresent":
        return current === undefined ? { reason: "ENTRY_ABSENT", current } : undefined;
      case "ifRevision":
        return current === condition.value ? undefined : { reason: "REVISION_MISMATCH", current };
    }
  }

  write(write: Write): WriteReply | Fault {
    const { name, condition } = write;
    const old = this.entries.get(identity(name));
    const fault = this.fault(name, condition);
    if (fault !== undefined) {
      return fault;
    }
    const previous = write.returnPrevious ? old : undefined;
    const created = old === undefined;
    switch (write.do) {
      case "set":
        return { created, revision: this.#put(write, write.valueJson), previous };
      case "delete":
        this.revision += this.entries.delete(identity(name)) ? 1n : 0n;
        return { existed: !created, revision: this.revision, previous };
      case "update": {
        const next = changed(old?.valueJson, write.change);
        if ("fault" in next) {
          return { reason: next.fault, current: old?.revision };
        }
        const { valueJson, isUnchanged = false } = next;
        // The time to live may be what changes.
        const keeps = write.keepTtl === true && old?.hours !== undefined;
        const isWrite = !isUnchanged || (write.hours !== undefined && !keeps);
        const revision = isWrite ? this.#put(write, valueJson) : this.revision;
        return { valueJson, created, changed: isWrite, revision, previous };
      }
    }
  }

  #put(write: Write, valueJson: string): bigint {
    const { scope, namespace, key } = write.name;
    const hours = hoursAfter(write, this.entries.get(identity(write.name))?.hours);
    this.revision += 1n;
    const entry = { scope, namespace: namespace || "default", key, valueJson };
    const { revision } = this;
    this.entries.set(identity(write.name), { ...entry, revision, ...(hours && { hours }) });
    return revision;
  }
}

/** How long an entry is to live after a write. */
function hoursAfter({ do: kind, hours, keepTtl }: Write, old: number | undefined) {
  const keeps = keepTtl || (kind === "update" && hours === undefined);
  return keeps ? (old ?? hours) : hours;
}

function usage(entries: Entries): Quotas {
  const sizes = [...entries.values()].map(({ scope, namespace, key, valueJson }) =>
    Buffer.byteLength(scope.id + namespace + key + valueJson),
  );
  return { entries: entries.size, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

function refusal(reason: string, metadata: object, failedChecks: string[] = []): Outcome {
  const texts = Object.entries(metadata).map(([name, value]) => [name, `${value}`]);
  return { refused: { reason, metadata: Object.fromEntries(texts), failedChecks } };
}

function currentOf({ current }: Fault) {
  return current === undefined ? {} : { current };
}

/** Compares two texts as bytes of UTF-8. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function isAskedFor(key: string, listing: Listing): boolean {
  const { prefix = "", start = "", startAfter = "", end = "" } = listing;
  return (
    key.startsWith(prefix) &&
    compareBytes(key, start) >= 0 &&
    (startAfter === "" || compareBytes(key, startAfter) > 0) &&
    (end === "" || compareBytes(key, end) < 0)
  );
}

/** A text that is the same for the same entry. */
export function identity({ scope, namespace, key }: Name): string {
  return JSON.stringify([scope.kind, scope.id, namespace || "default", key]);
}

/** An entry of a reply without its times, which must be there. */
export function contentOf({ scope, namespace, key, valueJson, ...entry }: Entry): ModelEntry {
  expect(entry).toMatchObject({ createTime: expect.anything(), updateTime: expect.anything() });
  const { kind, id } = scope!;
  const content = { scope: { kind, id }, namespace, key, valueJson, revision: entry.revision };
  return entry.expireTime ? { ...content, hours: hoursUntil(entry.expireTime.seconds) } : content;
}

function hoursUntil(seconds: bigint): number {
  return Math.round((Number(seconds) - Date.now() / 1000) / 3600);
}

/** Reads a whole listing page by page. */
export async function readPages(client: TestClient, listing: Listing): Promise<ModelEntry[][]> {
  const pages: ModelEntry[][] = [];
  let pageToken = "";
  do {
    const page = await client.call("list", { ...listing, pageToken });
    pages.push(page.entries.map(contentOf));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return pages;
}

/** The places a random history works in: their names overlap as far as the API allows. */
export function placesOf(unique: string): readonly Place[] {
  return [
    { scope: { kind: ScopeKind.INSTANCE, id: "" }, namespace: unique },
    { scope: { kind: ScopeKind.RUN, id: unique }, namespace: "" },
    { scope: { kind: ScopeKind.RUN, id: unique }, namespace: unique },
    { scope: { kind: ScopeKind.ISSUE, id: unique }, namespace: "" },
  ];
}
