// @ts-check
// What a message costs to decode and to serialize, by src/rpc and by protobuf-es: npm run build && node
// bench/codec.js. A GetRequest, a BatchGetRequest of 100 names, and a GetResponse with a value of 220 bytes; each
// pair in turn, the best of nine rounds.

import { isDeepStrictEqual } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { itemAt } from "./load/items.js";
import { GENERATED } from "./load/payloads.js";

/** @import { Generated } from "./load/payloads.js" */

/** @type {Pick<typeof import("../src/rpc/encoder.ts"), "compileEncoder">} */
const { compileEncoder } = await import(new URL("../dist/rpc/encoder.js", import.meta.url).href);
/** @type {Pick<typeof import("../src/rpc/decode.ts"), "decode">} */
const { decode } = await import(new URL("../dist/rpc/decode.js", import.meta.url).href);
/** @type {Generated} */
const { BatchGetRequestSchema, GetRequestSchema, GetResponseSchema } = await import(GENERATED.href);

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
const encode = compileEncoder(GetResponseSchema);

/** @typedef {{ name: string, repeats: number, ours: () => object, theirs: () => object }} Pair */

/** @type {Pair[]} */
const pairs = [
  {
    name: "decode a GetRequest",
    repeats,
    ours: () => decode(GetRequestSchema, requests.get),
    theirs: () => fromBinary(GetRequestSchema, requests.get),
  },
  {
    name: "decode a BatchGetRequest of 100",
    repeats: repeats / 100,
    ours: () => decode(BatchGetRequestSchema, requests.batchGet),
    theirs: () => fromBinary(BatchGetRequestSchema, requests.batchGet),
  },
  {
    name: "serialize a GetResponse",
    repeats,
    ours: () => Uint8Array.from(encode(reply)),
    theirs: () => toBinary(GetResponseSchema, create(GetResponseSchema, reply)),
  },
];

console.log(`Node ${process.version}, ns each       compiled  protobuf-es`);
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
