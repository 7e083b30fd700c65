import { create, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { pluginStateServiceCodec } from "../../src/gen/pluginstate/v1/plugin_state_service_codec.ts";
import {
  type TransactRequest,
  TransactRequestSchema,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { decode as decodeBy, MalformedRequest } from "../../src/rpc/decode.ts";
import { damagedBytes } from "../support/damaged-bytes.ts";

const name = { scope: { kind: ScopeKind.PROJECT, id: "p" }, namespace: "n", key: "k" };
const ttl = { seconds: 60n, nanos: 5 };
const ifRevision = { case: "ifRevision", value: 2n ** 62n } as const;
const increment = { case: "increment", value: { by: "1", min: "0" } } as const;
const request = create(TransactRequestSchema, {
  requestId: "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77",
  checks: [{ ...name, condition: ifRevision }],
  operations: [
    { operation: { case: "set", value: { ...name, valueJson: `"${"é".repeat(20_000)}"`, ttl } } },
    { operation: { case: "update", value: { ...name, change: increment, ttl, keepTtl: true } } },
    { operation: { case: "delete", value: { ...name, condition: ifRevision } } },
  ],
});
const bytes = bytesOf(request);
const small = bytesOf(
  create(TransactRequestSchema, { ...request, operations: request.operations.slice(1) }),
);
const { read } = pluginStateServiceCodec.transact;
const decode = (bytes: Buffer) => decodeBy(TransactRequestSchema, read, bytes);

test("a request is what protobuf-es makes of it", () => {
  expect(decode(bytes)).toEqual(request);
});

test("bytes that were damaged are refused, or hold what protobuf-es reads and nothing unknown", () => {
  let refused = 0;
  const one = (damaged: Buffer) => {
    try {
      const decoded = decode(damaged);
      expect(decoded).toEqual(fromBinary(TransactRequestSchema, damaged));
      expect(unknownIn(decoded)).toEqual([]);
    } catch (error) {
      if (!(error instanceof MalformedRequest)) throw error;
      refused += 1;
    }
  };
  fc.assert(fc.property(damagedBytes([small]), one), { numRuns: 3_000 });
  expect(refused).toBeGreaterThan(1_000);
});

test.each([
  ["of the request", Buffer.from([0x7a, 0x00]), "#15"],
  ["of the request, of two bytes", Buffer.from([0x82, 0x01, 0x00]), "#16"],
  ["of an operation", Buffer.from([0x12, 0x02, 0x78, 0x01]), "operations[2].#15"],
])("a field that isn't known is named: one %s", (_what, added, field) => {
  const damaged = Buffer.concat([small, added]);
  expect(() => decode(damaged)).toThrow(
    expect.objectContaining({ name: "MalformedRequest", field }),
  );
});

/** Fields that protobuf-es kept aside, of a message and of those in it. */
function unknownIn(value: unknown): unknown[] {
  if (typeof value !== "object" || value === null) return [];
  const own = (value as Partial<Message>).$unknown ?? [];
  return [...own, ...Object.values(value).flatMap(unknownIn)];
}

function bytesOf(message: TransactRequest): Buffer {
  return Buffer.from(toBinary(TransactRequestSchema, message));
}
