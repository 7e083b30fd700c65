// @ts-check
// What a reply costs to serialize, by src/rpc/encoder.ts and by protobuf-es: npm run build && node
// bench/encoder.js. A GetResponse with a value of 220 bytes; both in turn, the best of nine rounds.

import { create, toBinary } from "@bufbuild/protobuf";
import { itemAt } from "./load/items.js";
import { GENERATED } from "./load/payloads.js";

/** @import { Generated } from "./load/payloads.js" */

/** @type {Pick<typeof import("../src/rpc/encoder.ts"), "compileEncoder">} */
const { compileEncoder } = await import(new URL("../dist/rpc/encoder.js", import.meta.url).href);
/** @type {Generated} */
const { GetResponseSchema } = await import(GENERATED.href);

const repeats = 50_000;
const time = { seconds: 1_792_000_000n, nanos: 123_456_000 };
const reply = {
  entry: {
    scope: { kind: /** @type {const} */ (3), id: "bench-project" },
    namespace: "bench",
    ...itemAt(1234, 220, 1),
    revision: 123_456n,
    createTime: time,
    updateTime: time,
  },
  revision: 234_567n,
};
const compiled = compileEncoder(GetResponseSchema);

const ways = {
  "compiled encoder": () => compiled(reply),
  "toBinary(create())": () => toBinary(GetResponseSchema, create(GetResponseSchema, reply)),
};
const [first, second] = Object.values(ways).map((encode) => Buffer.from(encode()));
if (first === undefined || second === undefined || !first.equals(second)) {
  throw new Error("the two don't write the same");
}

/** @param {() => Uint8Array} encode */
function nsPerReply(encode) {
  const startedAt = process.hrtime.bigint();
  for (let i = 0; i < repeats; i++) encode();
  return Number(process.hrtime.bigint() - startedAt) / repeats;
}

const best = Object.values(ways).map(() => Number.POSITIVE_INFINITY);
for (let round = 0; round < 9; round++) {
  for (const [index, encode] of Object.values(ways).entries()) {
    best[index] = Math.min(best[index] ?? 0, nsPerReply(encode));
  }
}
console.log(`Node ${process.version}, a reply of ${first.length} bytes, ns per reply`);
for (const [index, name] of Object.keys(ways).entries()) {
  console.log(`${name.padEnd(20)}${best[index]?.toFixed(0).padStart(6)}`);
}
