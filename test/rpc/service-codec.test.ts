import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { pluginStateServiceCodec } from "../../src/gen/pluginstate/v1/plugin_state_service_codec.ts";
import {
  BatchGetResponseSchema,
  PluginStateService,
  SetRequestSchema,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { decode } from "../../src/rpc/decode.ts";
import type { MethodCodec } from "../../src/rpc/service-codec.ts";
import { readPlain } from "../../src/rpc/wire-input.ts";
import { encode } from "../../src/rpc/wire-output.ts";
import { anyMessage, plainValues } from "../support/any-message.ts";

type Codecs = Record<string, MethodCodec<DescMessage, DescMessage>>;

const codecs = pluginStateServiceCodec as unknown as Codecs;
const { get, set, batchGet } = pluginStateServiceCodec;
const methods = PluginStateService.methods.map(
  (method) => [method.name, method as DescMethodUnary, codecs[method.localName]!] as const,
);

test.each(methods)("a request of %s is read as protobuf-es reads it", (_name, { input }, codec) => {
  fc.assert(
    fc.property(anyMessage(input), (message) => {
      // What the arbitrary makes is the schema's shape.
      const bytes = bytesOf(input, message as MessageShape<DescMessage>);
      expect(decode(input, codec.read, bytes)).toEqual(fromBinary(input, bytes));
    }),
    { numRuns: 300 },
  );
});

test.each(methods)(
  "a request of %s as clients usually send it is read without protobuf-es",
  (_name, { input }, codec) => {
    fc.assert(
      fc.property(anyMessage(input, plainValues), (message) => {
        const bytes = bytesOf(input, message as MessageShape<DescMessage>);
        expect(readPlain(codec.read, bytes)).toEqual(fromBinary(input, bytes));
      }),
    );
  },
);

test.each(methods)(
  "a reply of %s is written byte for byte as protobuf-es writes it",
  (_name, { output }, codec) => {
    fc.assert(
      fc.property(anyMessage(output), (message) => {
        const init = message as MessageShape<DescMessage>;
        const written = encode(codec.write, init);
        expect(written.toString("hex")).toBe(bytesOf(output, init).toString("hex"));
      }),
      { numRuns: 300 },
    );
  },
);

const scope = { kind: ScopeKind.PROJECT, id: "π" };
const request = {
  scope,
  key: "k",
  valueJson: `"${"é".repeat(20_000)}"`,
  condition: { case: "ifRevision", value: 2n ** 49n - 1n },
  ttl: { seconds: 60n, nanos: 999_999_999 },
} as const;

test("what clients send is read without protobuf-es, in any order of its fields", () => {
  const bytes = bytesOf(SetRequestSchema, request);
  expect(readPlain(set.read, bytes)).toEqual(create(SetRequestSchema, request));

  const [first, rest] = [{ key: "k" }, { scope }].map((part) => bytesOf(SetRequestSchema, part));
  expect(readPlain(set.read, Buffer.concat([first!, rest!]))).toEqual(
    create(SetRequestSchema, { key: "k", scope }),
  );
});

test.each([
  ["a number that is negative", { condition: { case: "ifRevision", value: -1n } }],
  ["a number of over 49 bits", { condition: { case: "ifRevision", value: 2n ** 49n } }],
  ["U+FFFD, which stands for what isn't UTF-8, too", { key: "a\ufffdb" }],
] as const)("protobuf-es reads %s", (_what, part) => {
  const bytes = bytesOf(SetRequestSchema, part);
  expect(readPlain(set.read, bytes)).toBeUndefined();
  expect(decode(SetRequestSchema, set.read, bytes)).toEqual(create(SetRequestSchema, part));
});

test("protobuf-es reads a message that comes in two parts, as one", () => {
  const parts = [{ scope: { kind: ScopeKind.PROJECT } }, { scope: { id: "p" } }];
  const bytes = Buffer.concat(parts.map((part) => bytesOf(SetRequestSchema, part)));
  expect(readPlain(set.read, bytes)).toBeUndefined();
  expect(decode(SetRequestSchema, set.read, bytes).scope).toMatchObject({
    kind: ScopeKind.PROJECT,
    id: "p",
  });
});

test("a request that is cut short anywhere is never read without protobuf-es, but between fields", () => {
  const { input } = PluginStateService.method.get;
  const bytes = bytesOf(input, { scope, namespace: "n", key: "k" });
  const plain = [...bytes.keys()].filter(
    (length) => readPlain(get.read, bytes.subarray(0, length)) !== undefined,
  );
  const fieldEnds = [{}, { scope }, { scope, namespace: "n" }];
  expect(plain).toEqual(fieldEnds.map((message) => bytesOf(input, message).length));
});

test("texts of any length are written so, each in a message that is as long, small ones after large", () => {
  const lengths = [0, 1, 40, 41, 42, 43, 127, 128, 4096, 4097, 16_383, 16_384, 70_000, 3 << 20, 5];
  for (const character of ["a", "é", "語", "𝒳", "\ud800"]) {
    // Half of a surrogate pair has no bytes of its own.
    const written = character === "\ud800" ? "\ufffd" : character;
    for (const length of lengths) {
      // Twenty, so that texts of a few thousand come to the end of a buffer.
      const holding = (valueJson: string) => ({
        results: [
          ...Array(length > 5_000 ? 1 : 20).fill({ entry: { valueJson } }),
          { entry: { key: "k" } },
        ],
      });
      const message = encode(batchGet.write, holding(character.repeat(length)));
      const expected = bytesOf(BatchGetResponseSchema, holding(written.repeat(length)));
      // Compared as one: a difference of megabytes can't be shown.
      expect(message.equals(expected), `${length} of ${character}`).toBe(true);
    }
  }
});

test("a reply that can't be written leaves nothing in the next", () => {
  const entry = { key: "k", revision: 1n };
  const broken = { entry, revision: "no number" as unknown as bigint };
  expect(() => encode(get.write, broken)).toThrow();
  const { output } = PluginStateService.method.get;
  expect(encode(get.write, { entry }).equals(bytesOf(output, { entry }))).toBe(true);
});

/** A message as protobuf-es writes it. */
function bytesOf<D extends DescMessage>(desc: D, message: MessageInitShape<D>): Buffer {
  return Buffer.from(toBinary(desc, create(desc, message)));
}
