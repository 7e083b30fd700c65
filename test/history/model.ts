import { isDeepStrictEqual } from "node:util";
import type {
  Change,
  Check,
  Condition,
  Entry,
  FailedPart,
  ForeignWrite,
  Json,
  List,
  Name,
  Outcome,
  Read,
  Refusal,
  Reply,
  Result,
  Transact,
  Write,
} from "./operation.ts";
import { identity } from "./operation.ts";

/** An entry that is there. */
export interface Present {
  readonly name: Name;
  readonly value: Json;
  readonly revision: bigint;
}

/** What is under a name at one moment. */
export type State = Present | undefined;

/** A plugin's entries at one moment. */
export interface Entries {
  get(name: Name): State;
  in(place: string): readonly Present[];
}

/** What a write does to a plugin, and answers. */
export interface Effect {
  readonly outcome: Outcome;
  /** What becomes of each entry that it changes, by identity. */
  readonly changes: ReadonlyMap<string, { readonly name: Name; readonly state: State }>;
  readonly revision: bigint;
}

/** What a read of these entries must answer. */
export function read(request: Read, entries: Entries, revision: bigint): Reply {
  switch (request.do) {
    case "get":
      return { do: "get", revision, entry: shown(entries.get(request.name)) };
    case "batchGet": {
      const found = request.names.map((name) => shown(entries.get(name)));
      return { do: "batchGet", revision, entries: found };
    }
    case "list": {
      const all = listed(request, entries.in(request.place));
      const page = all.slice(0, request.pageSize || 100);
      const shownPage = page.map((entry) => shown(entry, request.keysOnly));
      return { do: "list", revision, entries: shownPage, more: page.length < all.length };
    }
  }
}

/** Whether a listing is about a key. */
export function isListed({ prefix, startAfter }: List, key: string): boolean {
  return key.startsWith(prefix) && (startAfter === "" || key > startAfter);
}

// Keys of histories are ASCII: their order as bytes is that of their characters.
function listed(list: List, entries: readonly Present[]): Present[] {
  const found = entries
    .filter(({ name }) => isListed(list, name.key))
    .sort((a, b) => (a.name.key < b.name.key ? -1 : 1));
  return list.reverse ? found.reverse() : found;
}

function shown(state: Present, keysOnly?: boolean): Entry;
function shown(state: State, keysOnly?: boolean): Entry | undefined;
function shown(state: State, keysOnly = false): Entry | undefined {
  if (state === undefined) {
    return undefined;
  }
  const { name, revision, value } = state;
  return keysOnly ? { ...name, revision } : { ...name, revision, value };
}

/**
 * What a write does to these entries.
 *
 * @param revision The plugin's before it.
 */
export function write(
  request: Write | Transact | ForeignWrite,
  entries: Entries,
  revision: bigint,
): Effect {
  const draft = new Draft(entries, revision);
  const outcome = outcomeOf(request, draft);
  const changes = outcome.kind === "ok" ? draft.changes : new Map();
  return { outcome, changes, revision: outcome.kind === "ok" ? draft.revision : revision };
}

function outcomeOf(request: Write | Transact | ForeignWrite, draft: Draft): Outcome {
  switch (request.do) {
    case "transact":
      return transact(request, draft);
    case "foreignUpsert":
      draft.put(request.name, request.value);
      return { kind: "ok", reply: { do: "foreignUpsert" } };
    case "foreignDelete":
      return { kind: "ok", reply: { do: "foreignDelete", existed: draft.remove(request.name) } };
    default: {
      const done = writeOne(request, draft);
      return isResult(done) ? { kind: "ok", reply: done } : { kind: "refused", refusal: done };
    }
  }
}

function transact({ checks, operations }: Transact, draft: Draft): Outcome {
  const failed: FailedPart[] = [];
  for (const [index, check] of checks.entries()) {
    const refusal = unmet(check, draft.get(check.name));
    if (refusal !== undefined) {
      failed.push({ part: "check", index, ...refusal });
    }
  }
  const results: Result[] = [];
  for (const [index, operation] of operations.entries()) {
    const done = writeOne(operation, draft);
    if (isResult(done)) {
      results.push(done);
    } else {
      // Nothing of it happened: the entry is as it was before the operations.
      const { reason } = done;
      const current = currentOf(draft.before(operation.name));
      failed.push({ part: "operation", index, reason, ...current });
    }
  }
  return failed.length > 0
    ? { kind: "refused", refusal: { reason: "CHECKS_FAILED", failed } }
    : { kind: "ok", reply: { do: "transact", revision: draft.revision, results } };
}

function isResult(done: Result | Refusal): done is Result {
  return "do" in done;
}

function writeOne(request: Write, draft: Draft): Result | Refusal {
  const { name, condition, returnPrevious } = request;
  const before = draft.get(name);
  const refusal = condition && unmet({ name, condition }, before);
  if (refusal !== undefined) {
    return refusal;
  }
  const previous = returnPrevious && before !== undefined ? { previous: shown(before) } : {};
  switch (request.do) {
    case "set":
      draft.put(name, request.value);
      return {
        do: "set",
        revision: draft.revision,
        created: before === undefined,
        ...previous,
      };
    case "delete": {
      const existed = draft.remove(name);
      return { do: "delete", revision: draft.revision, existed, ...previous };
    }
    case "update": {
      const changed = changedValue(request.change, before?.value);
      if ("reason" in changed) {
        return { ...changed, ...currentOf(before) };
      }
      if (changed.isChanged) {
        draft.put(name, changed.value);
      }
      return {
        do: "update",
        revision: draft.revision,
        value: changed.value,
        created: before === undefined,
        changed: changed.isChanged,
        ...previous,
      };
    }
  }
}

function unmet({ condition }: Check, state: State): Refusal | undefined {
  return isMet(condition, state)
    ? undefined
    : { reason: reasons[condition.kind], ...currentOf(state) };
}

const reasons: Record<Condition["kind"], string> = {
  revision: "REVISION_MISMATCH",
  absent: "ENTRY_EXISTS",
  present: "ENTRY_ABSENT",
};

function isMet(condition: Condition, state: State): boolean {
  switch (condition.kind) {
    case "revision":
      return state?.revision === condition.revision;
    case "absent":
      return state === undefined;
    case "present":
      return state !== undefined;
  }
}

function currentOf(state: State): { current: bigint } | Record<string, never> {
  return state === undefined ? {} : { current: state.revision };
}

type Changed = { readonly value: Json; readonly isChanged: boolean } | { readonly reason: string };

function changedValue(change: Change, before: Json | undefined): Changed {
  switch (change.kind) {
    case "increment":
      return incremented(change, before ?? 0);
    case "append":
      return appended(change, before ?? []);
    case "mergePatch":
      // A value that is JSON null counts as {} as well: it's no object.
      return { value: mergePatch(before, change.patch), isChanged: true };
  }
}

function incremented(change: Change & { kind: "increment" }, before: Json): Changed {
  if (typeof before !== "number") {
    return { reason: "WRONG_TYPE" };
  }
  const value = before + change.by;
  return change.max !== undefined && value > change.max
    ? { reason: "OUT_OF_BOUNDS" }
    : { value, isChanged: true };
}

function appended(change: Change & { kind: "append" }, before: Json): Changed {
  if (!Array.isArray(before)) {
    return { reason: "WRONG_TYPE" };
  }
  const { item, unique, maxLength } = change;
  if (unique && before.some((other) => isDeepStrictEqual(other, item))) {
    return { value: before, isChanged: false };
  }
  const value = [...before, item];
  return { value: maxLength > 0 ? value.slice(-maxLength) : value, isChanged: true };
}

/** RFC 7396. */
function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) {
    return patch;
  }
  const merged = isObject(target) ? { ...target } : {};
  for (const [member, value] of Object.entries(patch)) {
    if (value === null) {
      delete merged[member];
    } else {
      merged[member] = mergePatch(merged[member], value);
    }
  }
  return merged;
}

function isObject(value: Json | undefined): value is { [member: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Entries as a write under way sees them. */
class Draft {
  revision: bigint;
  readonly changes = new Map<string, { readonly name: Name; readonly state: State }>();
  readonly #entries: Entries;

  constructor(entries: Entries, revision: bigint) {
    this.#entries = entries;
    this.revision = revision;
  }

  get(name: Name): State {
    const change = this.changes.get(identity(name));
    return change === undefined ? this.#entries.get(name) : change.state;
  }

  /** As it was before the write. */
  before(name: Name): State {
    return this.#entries.get(name);
  }

  put(name: Name, value: Json): void {
    this.revision += 1n;
    this.changes.set(identity(name), { name, state: { name, value, revision: this.revision } });
  }

  remove(name: Name): boolean {
    if (this.get(name) === undefined) {
      return false;
    }
    this.revision += 1n;
    this.changes.set(identity(name), { name, state: undefined });
    return true;
  }
}
