// @ts-check
// What the load consists of: empty echoes, or calls of pluginstate.v1 on a fixed set of keys.

import { isDeepStrictEqual } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { messageBody } from "./stream.js";

/** @import { Call } from "./stream.js" */

/** The build's output, typed. @typedef {typeof import("../../src/gen/pluginstate/v1/plugin_state_service_pb.ts")} Generated */

/** The build's output: `npm run bench` builds first. */
export const GENERATED = new URL(
  "../../dist/gen/pluginstate/v1/plugin_state_service_pb.js",
  import.meta.url,
);

/** Kind 3 is `SCOPE_KIND_PROJECT`, without loading its file for one number. */
const SCOPE = { kind: /** @type {const} */ (3), id: "bench-project" };
const NAMESPACE = "bench";
const KEYS_PER_PREFIX = 100;

/** Empty calls of one method. @typedef {{ kind: "empty", path: string }} EmptySpec */

/**
 * Calls of pluginstate.v1, one for each key, in an order and with values that depend on the seed only.
 * A Get's reply is right only if its key was Set with the same seed, keys and valueBytes before.
 * @typedef {object} PluginStateSpec
 * @property {"pluginstate"} kind
 * @property {Partial<Record<RpcName, number>>} rpcs with their shares, such as `{ Get: 0.9, Set: 0.1 }`
 * @property {number} [keys] 10,000 unless told
 * @property {number} [valueBytes] the JSON text's length, about; 220 unless told
 * @property {number} [seed]
 */

/** @typedef {"Get" | "Set" | "Delete" | "List" | "GetServerInfo"} RpcName */
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
async function pluginStateCalls({ rpcs, keys = 10_000, valueBytes = 220, seed = 1 }) {
  const encode = callEncoder(await import(GENERATED.href));
  const random = randomNumbers(seed);
  const order = shuffled(keys, random);
  return order.map((index) => {
    const item = { key: keyName(index), valueJson: valueJson(index, valueBytes, seed) };
    return encode[pick(rpcs, random())](item);
  });
}

/**
 * One encoder per RPC, from a key and its value to a call that knows its right reply.
 * @param {Generated} generated
 * @returns {Record<RpcName, (item: Item) => Call>}
 */
function callEncoder({ PluginStateService: service }) {
  const { get, set, delete: remove, list, getServerInfo } = service.method;
  const place = { scope: SCOPE, namespace: NAMESPACE };
  /** @param {{ name: string }} method */
  const path = (method) => `/${service.typeName}/${method.name}`;
  return {
    Get: ({ key, valueJson }) => ({
      path: path(get),
      body: messageBody(toBinary(get.input, create(get.input, { ...place, key }))),
      isRight: (reply) => {
        const { entry } = fromBinary(get.output, reply);
        return entry?.key === key && isSameJson(entry.valueJson, valueJson);
      },
    }),
    Set: ({ key, valueJson }) => ({
      path: path(set),
      body: messageBody(toBinary(set.input, create(set.input, { ...place, key, valueJson }))),
      isRight: (reply) => fromBinary(set.output, reply).revision > 0n,
    }),
    Delete: ({ key }) => ({
      path: path(remove),
      body: messageBody(toBinary(remove.input, create(remove.input, { ...place, key }))),
      isRight: (reply) => fromBinary(remove.output, reply).revision > 0n,
    }),
    List: ({ key }) => {
      const prefix = key.slice(0, key.lastIndexOf("/") + 1);
      const request = create(list.input, { ...place, prefix, pageSize: KEYS_PER_PREFIX });
      return {
        path: path(list),
        body: messageBody(toBinary(list.input, request)),
        isRight: (reply) => {
          const { entries } = fromBinary(list.output, reply);
          return entries.length > 0 && entries.every((entry) => entry.key.startsWith(prefix));
        },
      };
    },
    GetServerInfo: () => ({
      path: path(getServerInfo),
      body: messageBody(new Uint8Array(0)),
      isRight: (reply) => fromBinary(getServerInfo.output, reply).version !== "",
    }),
  };
}

/** A key and its value. @typedef {{ key: string, valueJson: string }} Item */

/**
 * `item/0012/34`: a hundred keys share a prefix.
 * @param {number} index
 */
function keyName(index) {
  const group = String(Math.floor(index / KEYS_PER_PREFIX)).padStart(4, "0");
  return `item/${group}/${String(index % KEYS_PER_PREFIX).padStart(2, "0")}`;
}

/**
 * A small record as a plugin keeps it, filled up with words to the length.
 * @param {number} index
 * @param {number} bytes
 * @param {number} seed
 */
function valueJson(index, bytes, seed) {
  const random = randomNumbers(seed * 1_000_003 + index);
  const record = {
    id: index,
    state: random() < 0.5 ? "open" : "done",
    weight: random(),
    tags: ["bench", word(random)],
    note: "",
  };
  const missing = bytes - JSON.stringify(record).length;
  while (record.note.length < missing) record.note += `${word(random)} `;
  record.note = record.note.slice(0, Math.max(0, missing));
  return JSON.stringify(record);
}

/** @param {() => number} random */
function word(random) {
  return Math.floor(random() * 36 ** 8).toString(36);
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

/**
 * The numbers from 0 to count - 1 in random order (Fisher and Yates).
 * @param {number} count
 * @param {() => number} random
 */
function shuffled(count, random) {
  const numbers = Array.from({ length: count }, (_, index) => index);
  for (let left = count; left > 1; left--) {
    const chosen = Math.floor(random() * left);
    [numbers[left - 1], numbers[chosen]] = [numbers[chosen] ?? 0, numbers[left - 1] ?? 0];
  }
  return numbers;
}

/**
 * Repeatable numbers in [0, 1) (mulberry32).
 * @param {number} seed
 * @returns {() => number}
 */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
