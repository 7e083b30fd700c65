import { expect } from "vitest";
import { type Entry, ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { ListRequest } from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import type { TestClient } from "./client.ts";

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

/** One operation of a random history. */
export type Operation =
  | { readonly do: "set"; readonly name: Name; readonly valueJson: string }
  | { readonly do: "delete"; readonly name: Name }
  | { readonly do: "get"; readonly name: Name }
  | { readonly do: "list"; readonly listing: Listing };

/** An entry without its times. */
export interface ModelEntry extends Name {
  readonly valueJson: string;
  readonly revision: bigint;
}

/** What a reply says. */
export type Outcome = { readonly revision: bigint } & (
  | { readonly created: boolean }
  | { readonly existed: boolean }
  | { readonly entry: ModelEntry | undefined }
  | { readonly entries: readonly ModelEntry[]; readonly more: boolean }
);

/** What a plugin's state must behave like: a map, and a counter of its writes. */
export class Model {
  revision: bigint;
  readonly #entries = new Map<string, ModelEntry>();

  /** @param revision The plugin's before the first operation. */
  constructor(revision = 0n) {
    this.revision = revision;
  }

  apply(operation: Operation): Outcome {
    switch (operation.do) {
      case "set":
        return this.#set(operation.name, operation.valueJson);
      case "delete":
        return this.#delete(operation.name);
      case "get":
        return { entry: this.#entries.get(identity(operation.name)), revision: this.revision };
      case "list": {
        const all = this.list(operation.listing);
        const entries = all.slice(0, operation.listing.pageSize || 100);
        return { entries, more: entries.length < all.length, revision: this.revision };
      }
    }
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

  #set(name: Name, valueJson: string): Outcome {
    const created = !this.#entries.has(identity(name));
    this.revision += 1n;
    const { scope, namespace, key } = name;
    const entry = { scope, namespace: namespace || "default", key, valueJson };
    this.#entries.set(identity(name), { ...entry, revision: this.revision });
    return { created, revision: this.revision };
  }

  #delete(name: Name): Outcome {
    const existed = this.#entries.delete(identity(name));
    this.revision += existed ? 1n : 0n;
    return { existed, revision: this.revision };
  }
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

function identity({ scope, namespace, key }: Name): string {
  return JSON.stringify([scope.kind, scope.id, namespace || "default", key]);
}

/** Does an operation on a sidecar, and returns what its reply says. */
export async function perform(client: TestClient, operation: Operation): Promise<Outcome> {
  switch (operation.do) {
    case "set": {
      const set = { ...operation.name, valueJson: operation.valueJson };
      const { created, revision } = await client.call("set", set);
      return { created, revision };
    }
    case "delete": {
      const { existed, revision } = await client.call("delete", operation.name);
      return { existed, revision };
    }
    case "get": {
      const { entry, revision } = await client.call("get", operation.name);
      return { entry: entry && contentOf(entry), revision };
    }
    case "list": {
      const { entries, nextPageToken, revision } = await client.call("list", operation.listing);
      return { entries: entries.map(contentOf), more: nextPageToken !== "", revision };
    }
  }
}

/** An entry of a reply without its times, which must be there. */
export function contentOf({ scope, namespace, key, valueJson, ...entry }: Entry): ModelEntry {
  expect(entry).toMatchObject({ createTime: expect.anything(), updateTime: expect.anything() });
  const { kind, id } = scope!;
  return { scope: { kind, id }, namespace, key, valueJson, revision: entry.revision };
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

/** An operation of a history that ran beside others, and what it answered. */
export interface Done {
  readonly operation: Operation;
  readonly outcome: Outcome;
  /** The highest revision that any reply had told before this operation was sent. */
  readonly floor: bigint;
}

/**
 * Does operations in rows: each row one after the other, the rows beside each other, and row n on
 * client n.
 */
export async function performRows(
  clients: readonly TestClient[],
  rows: readonly (readonly Operation[])[],
): Promise<Done[]> {
  const done: Done[] = [];
  let floor = 0n;
  const run = async (row: readonly Operation[], number: number) => {
    for (const operation of row) {
      const floorBefore = floor;
      const outcome = await perform(clients[number % clients.length]!, operation);
      floor = outcome.revision > floor ? outcome.revision : floor;
      done.push({ operation, outcome, floor: floorBefore });
    }
  };
  await Promise.all(rows.map(run));
  return done;
}

/**
 * Fails unless the model, doing the history's writes one after the other in the order of their
 * revisions, answers each operation as it was answered; and unless that order keeps to the clock.
 */
export function expectExplained(model: Model, history: readonly Done[]): void {
  const writes = history
    .filter(isWrite)
    .sort((a, b) => Number(a.outcome.revision - b.outcome.revision));
  const others = history.filter((done) => !isWrite(done));
  let explained = 0;
  const expectOthers = () => {
    for (const { operation, outcome, floor } of others) {
      if (outcome.revision === model.revision) {
        expect(outcome).toEqual(model.apply(operation));
        expect(outcome.revision).toBeGreaterThanOrEqual(floor);
        explained += 1;
      }
    }
  };
  expectOthers();
  for (const { operation, outcome, floor } of writes) {
    expect(outcome).toEqual(model.apply(operation));
    expect(outcome.revision).toBeGreaterThan(floor);
    expectOthers();
  }
  expect(explained).toBe(others.length);
}

/** Whether it took a revision. */
function isWrite({ outcome }: Done): boolean {
  return "created" in outcome || ("existed" in outcome && outcome.existed);
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
