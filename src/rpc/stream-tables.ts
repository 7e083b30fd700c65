import type { ServerHttp2Stream } from "node:http2";
import { isMap } from "node:util/types";
import type { ServerInterceptingCall, ServerInterceptor } from "@grpc/grpc-js";

/** Calls after which a connection's table of streams is renewed. 32 to 512 are alike. */
const renewAfter = 256;

/**
 * Renews, every now and then, the table in which node:http2 keeps a connection's open streams.
 *
 * A Map that is added to and deleted from all the time gets a new table inside whenever the old one
 * is full of deleted entries, and V8 leaves in each old table a reference to the next. Once one of
 * them has been promoted to the old generation, every later table, and with it every stream that ever
 * was, survives each scavenge until the next full collection: 3 MB of 11 were kept each 28 ms, for
 * a live heap of 7 MB, and collecting took a fifth of the CPU (Node 20, docs/performance.md). A new
 * Map has no such chain behind it.
 *
 * Where node keeps its table elsewhere, nothing happens.
 */
export function renewStreamTables(): ServerInterceptor {
  const calls = new WeakMap<object, number>();
  return (_method, call) => {
    const session = sessionOf(call);
    if (session !== undefined) {
      const count = (calls.get(session) ?? 0) + 1;
      calls.set(session, count % renewAfter);
      if (count === renewAfter) {
        renewTable(session);
      }
    }
    // The declared type is the wrapper class, but all that is ever called is this interface.
    return call as ServerInterceptingCall;
  };
}

/** grpc-js keeps its stream to itself; node's session is a public part of it. */
function sessionOf(call: object): object | undefined {
  const stream: unknown = Reflect.get(call, "stream");
  const session: unknown = isObject(stream) ? Reflect.get(stream, "session") : undefined;
  return isObject(session) ? session : undefined;
}

function renewTable(session: object): void {
  const found = tableOf(session);
  if (found !== undefined) {
    // Node's own kind of Map, which isn't an instance of ours, with what is in it.
    const Kind = found.streams.constructor as MapConstructor;
    Reflect.set(found.state, "streams", new Kind(found.streams));
  }
}

/** The open streams of a connection by their numbers, as node keeps them; not to be changed. */
export function streamsOf(session: object): ReadonlyMap<number, ServerHttp2Stream> | undefined {
  // Node keeps nothing else there; a test sees it.
  return tableOf(session)?.streams as ReadonlyMap<number, ServerHttp2Stream> | undefined;
}

function tableOf(session: object): { state: object; streams: Map<unknown, unknown> } | undefined {
  const key = Object.getOwnPropertySymbols(session).find(
    ({ description }) => description === "state",
  );
  const state: unknown = key === undefined ? undefined : Reflect.get(session, key);
  const streams: unknown = isObject(state) ? Reflect.get(state, "streams") : undefined;
  return isObject(state) && isMap(streams) ? { state, streams } : undefined;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
