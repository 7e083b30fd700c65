// @ts-check
// What a message costs to decode and to serialize, by generated functions and by protobuf-es: npm run build && node
// bench/codec.js. A GetRequest, a BatchGetRequest of 100 names, a GetResponse with a value of 220 bytes, and a
// BatchGetResponse of 100 such; each pair in turn, the best of nine rounds.

import { isDeepStrictEqual } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { itemAt } from "./load/items.js";
import { GENERATED } from "./load/payloads.js";

/** @import { Generated } from "./load/payloads.js" */

/** @type {Pick<typeof import("../src/rpc/wire-output.ts"), "encode">} */
const { encode } = await import(new URL("../dist/rpc/wire-output.js", import.meta.url).href);
/** @type {Pick<typeof import("../src/rpc/decode.ts"), "decode">} */
const { decode } = await import(new URL("../dist/rpc/decode.js", import.meta.url).href);
/** @type {Generated} */
const { BatchGetRequestSchema, BatchGetResponseSchema, GetRequestSchema, GetResponseSchema } =
  await import(GENERATED.href);
/** @type {typeof import("../src/gen/pluginstate/v1/plugin_state_service_codec.ts")} */
const { pluginStateServiceCodec } = await import(
  new URL("./plugin_state_service_codec.js", GENERATED).href
);

const repeats = 50_000;
const time = { seconds: 1_792_000_000n, nanos: 123_456_000 };
const place = {
  scope: { kind: /** @type {const} */ (3), id: "bench-project" },
  namespace: "bench",
};
const reply = {
  entry: {
    ...place,
    ...itemAt(1234, 220, 1),
    revision: 123_456n,
    createTime: time,
    updateTime: time,
  },
  revision: 234_567n,
};
const names = Array.from({ length: 100 }, (_, n) => ({ ...place, key: itemAt(n, 220, 1).key }));
const requests = {
  get: Buffer.from(toBinary(GetRequestSchema, create(GetRequestSchema, names[0]))),
  batchGet: Buffer.from(toBinary(BatchGetRequestSchema, create(BatchGetRequestSchema, { names }))),
};
const { get, batchGet } = pluginStateServiceCodec;
const batchReply = { results: Array(100).fill({ entry: reply.entry }), revision: 234_567n };

/** @typedef {{ name: string, repeats: number, ours: () => object, theirs: () => object }} Pair */

/** @type {Pair[]} */
const pairs = [
  {
    name: "decode a GetRequest",
    repeats,
    ours: () => decode(GetRequestSchema, get.read, requests.get),
    theirs: () => fromBinary(GetRequestSchema, requests.get),
  },
  {
    name: "decode a BatchGetRequest of 100",
    repeats: repeats / 100,
    ours: () => decode(BatchGetRequestSchema, batchGet.read, requests.batchGet),
    theirs: () => fromBinary(BatchGetRequestSchema, requests.batchGet),
  },
  {
    name: "serialize a GetResponse",
    repeats,
    ours: () => encode(get.write, reply),
    theirs: () => Buffer.from(toBinary(GetResponseSchema, create(GetResponseSchema, reply))),
  },
  {
    name: "serialize a BatchGetResponse of 100",
    repeats: repeats / 100,
    ours: () => encode(batchGet.write, batchReply),
    theirs: () =>
      Buffer.from(toBinary(BatchGetResponseSchema, create(BatchGetResponseSchema, batchReply))),
  },
];

console.log(`Node ${process.version}, ns each       generated  protobuf-es`);
for (const { name, repeats, ours, theirs } of pairs) {
  if (!isDeepStrictEqual(ours(), theirs())) {
    throw new Error(`${name}: the two don't make the same`);
  }
  const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < 9; round++) {
    for (const [index, run] of [ours, theirs].entries()) {
      best[index] = Math.min(best[index] ?? 0, nsEach(run, repeats));
    }
  }
  console.log(name.padEnd(34) + best.map((ns) => ns.toFixed(0).padStart(8)).join("     "));
}

/** @param {() => object} run @param {number} repeats */
function nsEach(run, repeats) {
  const startedAt = process.hrtime.bigint();
  for (let i = 0; i < repeats; i++) run();
  return Number(process.hrtime.bigint() - startedAt) / repeats;
}
