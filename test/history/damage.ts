import { isDeepStrictEqual } from "node:util";
import { read } from "./model.ts";
import type { Entry, History, Read, Recorded, Reply, Result } from "./operation.ts";
import { orderOf, placeOf } from "./order.ts";
import type { Random } from "./random.ts";
import type { Simulated, Step } from "./simulator.ts";

/**
 * Ways to make a right history wrong, each such that no order explains it any more. Undefined where
 * the history has nothing that could be damaged so.
 */
export const damages: Readonly<Record<string, Damage>> = {
  "a read of an entry as it was before its last write": (simulated, random) =>
    readsChanged(simulated, random, ({ operation, entries }, request, earlier) => {
      const reply = okReply(operation);
      const stale = read(request, earlier.entries, reply.revision);
      const isOther = !isDeepStrictEqual(stale, read(request, entries, reply.revision));
      return isOther ? stale : undefined;
    }),
  "a read of a snapshot older than what was acknowledged": ({ history, trace }, random) => {
    const { windows } = orderOf(history.operations, history);
    return anyOf(random, readsOf(trace), ([{ operation }, request]) => {
      const { floor } = windows.get(operation)!;
      const old = trace.filter(({ revision }) => revision < floor);
      const chosen = old.length > 0 ? random.oneOf(old) : undefined;
      return chosen && answered(history, operation, answerAt(request, chosen));
    });
  },
  "a read from the future": ({ history, trace }, random) =>
    anyOf(random, readsOf(trace), ([{ operation }, request]) => {
      const later = trace.find(
        ({ operation: other }) => other.invokedAt > operation.completedAt && isSingleWrite(other),
      );
      return later && answered(history, operation, answerAt(request, later));
    }),
  "a batch read of more than one snapshot": (simulated, random) =>
    readsChanged(simulated, random, ({ operation }, request, earlier) => {
      const reply = okReply(operation);
      if (reply.do !== "batchGet" || reply.entries.length < 2) {
        return undefined;
      }
      const stale = read(request, earlier.entries, reply.revision) as typeof reply;
      const torn = [...reply.entries.slice(0, -1), stale.entries.at(-1)];
      return isDeepStrictEqual(torn, reply.entries) ? undefined : { ...reply, entries: torn };
    }),
  "a write that answers another's revision": ({ history, trace }, random) => {
    const writes = trace.map(({ operation }) => operation).filter(isSingleWrite);
    return anyOf(random, writes, (operation) => {
      const other = random.oneOf(writes);
      const reply = { ...(okReply(operation) as Result), revision: okReply(other).revision };
      return isSame(operation, other) ? undefined : answered(history, operation, reply);
    });
  },
  "a write that answers a revision too high": ({ history, trace }, random) =>
    anyOf(random, trace.map(({ operation }) => operation).filter(isSingleWrite), (operation) => {
      const reply = okReply(operation) as Result;
      return answered(history, operation, { ...reply, revision: reply.revision + 1n });
    }),
  "a revision that nobody took": ({ history, trace }, random) =>
    anyOf(random, trace.map(({ operation }) => operation).filter(isSingleWrite), (operation) => ({
      ...history,
      operations: history.operations.filter((other) => !isSame(other, operation)),
    })),
  "a write that claims to have changed nothing": ({ history, trace }, random) =>
    anyOf(random, trace, ({ operation }) => {
      const reply = operation.outcome.kind === "ok" ? operation.outcome.reply : undefined;
      return reply?.do === "delete" && reply.existed
        ? answered(history, operation, { ...reply, existed: false })
        : undefined;
    }),
  "a condition refused that held": ({ history, trace }, random) =>
    anyOf(random, trace, ({ operation }) => {
      const reply = operation.outcome.kind === "ok" ? operation.outcome.reply : undefined;
      const entry = reply?.do === "get" ? reply.entry : undefined;
      return entry && added(history, refusedThough(operation, entry));
    }),
  "a request id under which two writes were done": ({ history, trace }, random) => {
    const writes = trace
      .map(({ operation }) => operation)
      .filter(isSingleWrite)
      .filter(({ request }) => !("requestId" in request));
    const [first, second] = [random.oneOf(writes), random.oneOf(writes)];
    return writes.length === 0 || isSame(first, second)
      ? undefined
      : replaced(replaced(history, withRequestId(first)), {
          ...withRequestId(second),
          request: withRequestId(first).request,
        });
  },
};

export type Damage = (simulated: Simulated, random: Random) => History | undefined;

/** The first damage that works out, from a random place on. */
function anyOf<T>(
  random: Random,
  places: readonly T[],
  attempt: (place: T) => History | undefined,
): History | undefined {
  const from = random.below(Math.max(1, places.length));
  for (const place of [...places.slice(from), ...places.slice(0, from)]) {
    const damaged = attempt(place);
    if (damaged !== undefined) {
      return damaged;
    }
  }
  return undefined;
}

function readsOf(trace: readonly Step[]): [Step, Read][] {
  return trace
    .filter(({ operation }) => isRead(operation.request))
    .map((step) => [step, step.operation.request as Read]);
}

/** Changes a read's answer by what there was at an earlier moment. */
function readsChanged(
  { history, trace }: Simulated,
  random: Random,
  change: (step: Step, request: Read, earlier: Step) => Reply | undefined,
): History | undefined {
  return anyOf(random, readsOf(trace), ([step, request]) => {
    const earlier = trace[random.below(trace.indexOf(step) + 1)]!;
    const reply = change(step, request, earlier);
    return reply && answered(history, step.operation, reply);
  });
}

function answerAt(request: Read, { entries, revision }: Step): Reply {
  return read(request, entries, revision);
}

function refusedThough(operation: Recorded, { revision, ...entry }: Entry): Recorded {
  const name = { place: entry.place, key: entry.key };
  const condition = { kind: "revision", revision } as const;
  return {
    ...operation,
    request: { do: "set", name, value: "never", condition },
    outcome: { kind: "refused", refusal: { reason: "REVISION_MISMATCH", current: revision } },
  };
}

function withRequestId(operation: Recorded): Recorded {
  const request = { ...operation.request, requestId: `again-${operation.id}` };
  return { ...operation, request: request as Recorded["request"] };
}

function isRead({ do: kind }: Recorded["request"]): boolean {
  return kind === "get" || kind === "batchGet" || kind === "list";
}

function isEffective(operation: Recorded): boolean {
  const place = placeOf(operation);
  return place !== undefined && place.last > place.base;
}

/** A write of one entry that took a revision, and was asked for once. */
function isSingleWrite(operation: Recorded): boolean {
  const { request } = operation;
  const hasId = "requestId" in request && request.requestId !== undefined;
  return isEffective(operation) && request.do !== "transact" && !hasId;
}

function okReply({ outcome }: Recorded): Extract<Reply, { revision: bigint }> {
  if (outcome.kind !== "ok" || !("revision" in outcome.reply)) {
    throw new Error("it has no revision");
  }
  return outcome.reply;
}

function isSame(a: Recorded, b: Recorded): boolean {
  return a.id === b.id;
}

function answered(history: History, operation: Recorded, reply: Reply): History {
  return replaced(history, { ...operation, outcome: { kind: "ok", reply } });
}

function replaced(history: History, operation: Recorded): History {
  const operations = history.operations.map((old) => (isSame(old, operation) ? operation : old));
  return { ...history, operations };
}

function added(history: History, operation: Recorded): History {
  const id = history.operations.length;
  return { ...history, operations: [...history.operations, { ...operation, id }] };
}
