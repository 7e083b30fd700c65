// @ts-check
// What the load consists of: empty echoes, or calls of pluginstate.v1 on a fixed set of keys.

import { isDeepStrictEqual } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { itemAt, KEYS_PER_PREFIX, randomNumbers, shuffled } from "./items.js";
import { messageBody } from "./stream.js";

/** @import { Item } from "./items.js" */
/** @import { Call } from "./stream.js" */

/** The build's output, typed. @typedef {typeof import("../../src/gen/pluginstate/v1/plugin_state_service_pb.ts")} Generated */

/** The build's output: `npm run bench` builds first. */
export const GENERATED = new URL(
  "../../dist/gen/pluginstate/v1/plugin_state_service_pb.js",
  import.meta.url,
);

/** Kind 3 is `SCOPE_KIND_PROJECT`, without loading its file for one number. */
const SCOPE = { kind: /** @type {const} */ (3), id: "bench-project" };

/** Where the entries are, in the words of the table. */
export const PLACE = { scopeKind: "project", scopeId: SCOPE.id, namespace: "bench" };

/** The keys of a Transact or BatchGet. */
export const KEYS_PER_BATCH = 100;

/** Empty calls of one method. @typedef {{ kind: "empty", path: string }} EmptySpec */

/**
 * Calls of pluginstate.v1, one for each key (of Transact and BatchGet: for each hundred), in an order and
 * with values that depend on the seeds only. A Get's reply is right only if its key was Set with the same
 * seed, keys and valueBytes before.
 * @typedef {object} PluginStateSpec
 * @property {"pluginstate"} kind
 * @property {Partial<Record<RpcName, number>>} rpcs with their shares, such as `{ Get: 0.9, Set: 0.1 }`
 * @property {number} [keys] 10,000 unless told
 * @property {number} [calledKeys] how many of them are called; all unless told
 * @property {number} [valueBytes] the JSON text's length, about; 220 unless told
 * @property {number} [seed]
 * @property {number} [orderSeed] `seed` unless told: the same entries in another order
 */

/** @typedef {"Get" | "Set" | "Delete" | "List" | "GetServerInfo"} SingleRpc */
/** @typedef {"Transact" | "BatchGet"} BatchRpc */
/** @typedef {SingleRpc | BatchRpc} RpcName */
/** @typedef {EmptySpec | PluginStateSpec} PayloadSpec */

/**
 * Makes the calls of a load.
 * @param {PayloadSpec} spec
 * @returns {Promise<Call[]>}
 */
export async function makeCalls(spec) {
  if (spec.kind === "pluginstate") return pluginStateCalls(spec);
  const body = messageBody(new Uint8Array(0));
  return [{ path: spec.path, body, isRight: (reply) => reply.length === 0 }];
}

/**
 * @param {PluginStateSpec} spec
 * @returns {Promise<Call[]>}
 */
async function pluginStateCalls(spec) {
  const { rpcs, keys = 10_000, valueBytes = 220, seed = 1, orderSeed = seed } = spec;
  const generated = await import(GENERATED.href);
  const encodeOne = singleEncoder(generated);
  const encodeMany = batchEncoder(generated);
  const random = randomNumbers(orderSeed);
  const order = shuffled(keys, random).slice(0, spec.calledKeys ?? keys);
  /** @type {Call[]} */
  const calls = [];
  for (let at = 0; at < order.length; ) {
    const rpc = pick(rpcs, random());
    const isBatch = isBatchRpc(rpc);
    const items = order
      .slice(at, at + (isBatch ? KEYS_PER_BATCH : 1))
      .map((index) => itemAt(index, valueBytes, seed));
    calls.push(...(isBatch ? [encodeMany[rpc](items)] : items.map(encodeOne[rpc])));
    at += items.length;
  }
  return calls;
}

/** @param {RpcName} rpc @returns {rpc is BatchRpc} */
function isBatchRpc(rpc) {
  return rpc === "Transact" || rpc === "BatchGet";
}

/**
 * One encoder per RPC, from a key and its value to a call that knows its right reply.
 * @param {Generated} generated
 * @returns {Record<SingleRpc, (item: Item) => Call>}
 */
function singleEncoder({ PluginStateService: service }) {
  const { get, set, delete: remove, list, getServerInfo } = service.method;
  const place = { scope: SCOPE, namespace: PLACE.namespace };
  return {
    Get: ({ key, valueJson }) => ({
      path: pathOf(get),
      body: messageBody(toBinary(get.input, create(get.input, { ...place, key }))),
      isRight: (reply) => {
        const { entry } = fromBinary(get.output, reply);
        return entry?.key === key && isSameJson(entry.valueJson, valueJson);
      },
    }),
    Set: ({ key, valueJson }) => ({
      path: pathOf(set),
      body: messageBody(toBinary(set.input, create(set.input, { ...place, key, valueJson }))),
      isRight: (reply) => fromBinary(set.output, reply).revision > 0n,
    }),
    Delete: ({ key }) => ({
      path: pathOf(remove),
      body: messageBody(toBinary(remove.input, create(remove.input, { ...place, key }))),
      isRight: (reply) => fromBinary(remove.output, reply).revision > 0n,
    }),
    List: ({ key }) => {
      const prefix = key.slice(0, key.lastIndexOf("/") + 1);
      const request = create(list.input, { ...place, prefix, pageSize: KEYS_PER_PREFIX });
      return {
        path: pathOf(list),
        body: messageBody(toBinary(list.input, request)),
        isRight: (reply) => {
          const { entries } = fromBinary(list.output, reply);
          return entries.length > 0 && entries.every((entry) => entry.key.startsWith(prefix));
        },
      };
    },
    GetServerInfo: () => ({
      path: pathOf(getServerInfo),
      body: messageBody(new Uint8Array(0)),
      isRight: (reply) => fromBinary(getServerInfo.output, reply).version !== "",
    }),
  };
}

/**
 * The same for calls about many keys.
 * @param {Generated} generated
 * @returns {Record<BatchRpc, (items: Item[]) => Call>}
 */
function batchEncoder({ PluginStateService: service }) {
  const { transact, batchGet } = service.method;
  const place = { scope: SCOPE, namespace: PLACE.namespace };
  return {
    Transact: (items) => {
      const operations = items.map((item) => ({
        operation: { case: /** @type {const} */ ("set"), value: { ...place, ...item } },
      }));
      return {
        path: pathOf(transact),
        body: messageBody(toBinary(transact.input, create(transact.input, { operations }))),
        isRight: (reply) => {
          const { results, revision } = fromBinary(transact.output, reply);
          return revision > 0n && results.length === items.length;
        },
      };
    },
    BatchGet: (items) => {
      const names = items.map(({ key }) => ({ ...place, key }));
      return {
        path: pathOf(batchGet),
        body: messageBody(toBinary(batchGet.input, create(batchGet.input, { names }))),
        isRight: (reply) => {
          const { results } = fromBinary(batchGet.output, reply);
          return items.every(({ key, valueJson }, index) => {
            const entry = results[index]?.entry;
            return entry?.key === key && isSameJson(entry.valueJson, valueJson);
          });
        },
      };
    },
  };
}

/** @param {{ name: string, parent: { typeName: string } }} method */
function pathOf({ name, parent }) {
  return `/${parent.typeName}/${name}`;
}

/**
 * jsonb has its own key order and spaces, so texts may differ.
 * @param {string} a
 * @param {string} b
 */
function isSameJson(a, b) {
  return isDeepStrictEqual(JSON.parse(a), JSON.parse(b));
}

/**
 * The RPC at a place between 0 and 1, when each takes its share of the way.
 * @param {Partial<Record<RpcName, number>>} rpcs
 * @param {number} place
 */
function pick(rpcs, place) {
  const names = /** @type {RpcName[]} */ (Object.keys(rpcs)); // the keys are typed so already
  const total = names.reduce((sum, name) => sum + (rpcs[name] ?? 0), 0);
  let end = 0;
  for (const name of names) {
    end += (rpcs[name] ?? 0) / total;
    if (place < end) return name;
  }
  throw new Error("rpcs: no shares");
}
