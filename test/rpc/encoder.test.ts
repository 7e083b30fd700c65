import {
  create,
  createFileRegistry,
  type DescMessage,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { expect, test } from "vitest";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import { EntrySchema } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { FailedChecksSchema } from "../../src/gen/pluginstate/v1/errors_pb.ts";
import {
  BatchGetResponseSchema,
  GetServerInfoResponseSchema,
  PluginStateService,
  SetRequestSchema,
  TransactRequestSchema,
  TransactResponseSchema,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { compileEncoder } from "../../src/rpc/encoder.ts";

const int64 = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.constantFrom(0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 53n - 1n, 2n ** 53n, -1n),
);
const int32 = fc.oneof(fc.integer(), fc.constantFrom(0, 1, -1, 127, 128, 2 ** 31 - 1, -(2 ** 31)));
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom("", "é", "𝒳", "x".repeat(300)),
);
const timestamp = fc.record({ seconds: int64, nanos: fc.integer({ min: 0, max: 999_999_999 }) });
const scope = fc.record({ kind: fc.integer({ min: 0, max: 8 }), id: text }, { requiredKeys: [] });
const entry = fc.record(
  {
    scope,
    namespace: text,
    key: text,
    valueJson: text,
    revision: int64,
    createTime: timestamp,
    expireTime: timestamp,
  },
  { requiredKeys: [] },
);
const setResponse = fc.record(
  { revision: int64, created: fc.boolean(), previous: entry },
  { requiredKeys: [] },
);
const condition = fc.oneof(
  fc.record({ case: fc.constant("ifRevision"), value: int64 }),
  fc.record({ case: fc.constant("ifAbsent"), value: fc.boolean() }),
  fc.constant({ case: undefined }),
);
const setRequest = fc.record(
  { scope, key: text, condition, ttl: timestamp },
  { requiredKeys: ["condition"] },
);

/** A message type, and any of its messages as a handler gives them. */
const kinds: [DescMessage, fc.Arbitrary<unknown>][] = [
  [EntrySchema, entry],
  [
    BatchGetResponseSchema,
    fc.record({ results: fc.array(fc.record({ entry }, { requiredKeys: [] })), revision: int64 }),
  ],
  [SetRequestSchema, setRequest],
  [
    TransactResponseSchema,
    fc.record({
      revision: int64,
      results: fc.array(
        fc.record({ result: fc.record({ case: fc.constant("set"), value: setResponse }) }),
      ),
    }),
  ],
  [
    TransactRequestSchema,
    fc.record({
      operations: fc.array(
        fc.record({ operation: fc.record({ case: fc.constant("set"), value: setRequest }) }),
      ),
    }),
  ],
  [
    FailedChecksSchema,
    fc.record({
      failed: fc.array(
        fc.record(
          {
            part: fc.record({ case: fc.constantFrom("check", "operation"), value: int32 }),
            reason: fc.integer({ min: 0, max: 20 }),
            currentRevision: int64,
          },
          { requiredKeys: ["part"] },
        ),
      ),
    }),
  ],
  [
    GetServerInfoResponseSchema,
    fc.record(
      {
        version: text,
        apiVersions: fc.array(text),
        limits: fc.record({ maxKeyBytes: int32, quotaBytes: int64 }),
      },
      { requiredKeys: [] },
    ),
  ],
];

test.each(kinds)("%s is written byte for byte as protobuf-es writes it", (schema, messages) => {
  const encode = compileEncoder(schema);
  fc.assert(
    fc.property(messages, (message) => {
      // What the arbitrary makes is the schema's shape.
      const init = message as MessageShape<typeof schema>;
      expect(encode(init).toString("hex")).toBe(
        Buffer.from(toBinary(schema, create(schema, init))).toString("hex"),
      );
    }),
    { numRuns: 300 },
  );
});

test("texts of any length are written so, each in a message that is as long, small ones after large", () => {
  const encode = compileEncoder(BatchGetResponseSchema);
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
      const message = holding(character.repeat(length));
      const expected = toBinary(
        BatchGetResponseSchema,
        create(BatchGetResponseSchema, holding(written.repeat(length))),
      );
      // Compared as one: a difference of megabytes can't be shown.
      expect(encode(message).equals(expected), `${length} of ${character}`).toBe(true);
    }
  }
});

test("messages in messages of their own type are written so, however long each is", () => {
  const field = {
    name: "children",
    number: 1,
    label: 3,
    type: 11,
    typeName: ".test.Node",
  } as const;
  const text = { name: "text", number: 2, label: 1, type: 9 } as const;
  const messageType = [{ name: "Node", field: [field, text] }];
  const file = [{ name: "node.proto", package: "test", syntax: "proto3", messageType }];
  const node = createFileRegistry(create(FileDescriptorSetSchema, { file })).getMessage(
    "test.Node",
  )!;
  const of = (length: number, ...children: object[]) => ({ text: "x".repeat(length), children });
  const encode = compileEncoder<DescMessage>(node);
  for (const tree of [
    of(1, of(200, of(1)), of(1), of(20_000, of(1, of(200)))),
    of(20_000, of(1), of(200, of(20_000, of(0)))),
  ]) {
    const expected = toBinary(node, create(node, tree));
    expect(Buffer.compare(encode(tree), expected)).toBe(0);
  }
});

test("every reply of the service, and what is in it, can be written", () => {
  for (const { output } of PluginStateService.methods) {
    const encode = compileEncoder<DescMessage>(output);
    expect(fromBinary(output, encode(create(output)))).toEqual(create(output));
  }
});

test("a type that the service doesn't have is refused when it is compiled, by name", () => {
  expect(() => compileEncoder(StatusSchema)).toThrow("google.protobuf.Any.value");
});
