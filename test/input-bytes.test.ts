import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import {
  BatchGetRequestSchema,
  DeleteRangeRequestSchema,
  DeleteRequestSchema,
  GetRequestSchema,
  ListRequestSchema,
  ListScopesRequestSchema,
  SetRequestSchema,
  TransactRequestSchema,
  UpdateRequestSchema,
} from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { CallError, failure } from "./support/client.ts";
import { damagedBytes } from "./support/damaged-bytes.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { type TestSidecar, testSidecar } from "./support/sidecar.ts";

let database: TestDatabase;
let server: TestSidecar;

beforeAll(async () => {
  database = await testDatabase();
  server = await testSidecar(database);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const scope = { kind: ScopeKind.RUN, id: "r" };
const name = { scope, namespace: "n", key: "k" };
const page = { prefix: "a", startAfter: "a", end: "b", reverse: true, pageSize: 9, pageToken: "t" };

const requestId = "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77";
const ttl = { seconds: 60n };
const increment = { case: "increment" as const, value: { by: "1", min: "0", max: "9" } };
const ifPresent = { case: "ifPresent" as const, value: true };
const update = { ...name, change: increment, condition: ifPresent, ttl };
const transact = {
  checks: [{ ...name, condition: { case: "ifRevision" as const, value: 1n } }],
  operations: [
    { operation: { case: "set" as const, value: { ...name, valueJson: "1", ttl } } },
    { operation: { case: "update" as const, value: update } },
    { operation: { case: "delete" as const, value: { ...name, condition: ifPresent } } },
  ],
};
const messages = {
  get: toBinary(GetRequestSchema, create(GetRequestSchema, name)),
  set: toBinary(SetRequestSchema, create(SetRequestSchema, { ...name, valueJson: '{"a": 1}' })),
  delete: toBinary(DeleteRequestSchema, create(DeleteRequestSchema, name)),
  list: toBinary(ListRequestSchema, create(ListRequestSchema, { scope, namespace: "n", ...page })),
  update: toBinary(UpdateRequestSchema, create(UpdateRequestSchema, { ...update, requestId })),
  transact: toBinary(TransactRequestSchema, create(TransactRequestSchema, transact)),
  batchGet: toBinary(BatchGetRequestSchema, create(BatchGetRequestSchema, { names: [name] })),
  deleteRange: toBinary(DeleteRangeRequestSchema, create(DeleteRangeRequestSchema, { scope })),
  listScopes: toBinary(ListScopesRequestSchema, create(ListScopesRequestSchema, { pageSize: 9 })),
  getServerInfo: new Uint8Array(),
};
type Method = keyof typeof messages;
const methods = Object.keys(messages) as Method[];

/** A field of length-delimited bytes. */
function field(number: number, content: Uint8Array): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(content).finish();
}

const refusal = (method: Method, ...parts: Uint8Array[]) =>
  failure(server.client.send(method, Buffer.concat(parts)));

const invalidField = {
  codeName: "INVALID_ARGUMENT",
  domain: "pluginstate",
  reason: "INVALID_FIELD",
};

describe("bytes that are no UTF-8 are refused, naming their field:", () => {
  const kind = Uint8Array.of(0x08, ScopeKind.RUN);
  const inScope = (content: Uint8Array) => field(1, Buffer.concat([kind, field(2, content)]));
  const fields: [Method, string, (content: Uint8Array) => Uint8Array][] = [
    ["get", "scope.id", inScope],
    ["get", "namespace", (content) => field(2, content)],
    ["get", "key", (content) => field(3, content)],
    ["set", "scope.id", inScope],
    ["set", "namespace", (content) => field(2, content)],
    ["set", "key", (content) => field(3, content)],
    ["set", "value_json", (content) => field(4, content)],
    ["delete", "scope.id", inScope],
    ["delete", "namespace", (content) => field(2, content)],
    ["delete", "key", (content) => field(3, content)],
    ["set", "request_id", (content) => field(11, content)],
    ["delete", "request_id", (content) => field(8, content)],
    ["update", "merge_patch", (content) => field(5, content)],
    ["update", "increment.by", (content) => field(4, field(1, content))],
    ["update", "append.value_json", (content) => field(6, field(1, content))],
    ["update", "request_id", (content) => field(13, content)],
    ["transact", "request_id", (content) => field(3, content)],
    ["deleteRange", "prefix", (content) => field(3, content)],
    ["listScopes", "page_token", (content) => field(3, content)],
    ["list", "scope.id", inScope],
    ["list", "namespace", (content) => field(2, content)],
    ["list", "prefix", (content) => field(3, content)],
    ["list", "start", (content) => field(4, content)],
    ["list", "start_after", (content) => field(5, content)],
    ["list", "end", (content) => field(6, content)],
    ["list", "page_token", (content) => field(10, content)],
  ];

  test.each(fields)("%s %s", async (method, path, encode) => {
    const contents = [
      [0xff],
      [0x61, 0xc3],
      [0xc0, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0x22, 0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80, 0x22],
    ];
    for (const content of contents) {
      const error = await refusal(method, messages[method], encode(Uint8Array.from(content)));
      expect(error).toMatchObject({ ...invalidField, fields: [path] });
    }
  });
});

describe.each(methods)("%s", (method) => {
  test("with a field that this sidecar doesn't know is refused, naming its number", async () => {
    const text = await refusal(method, messages[method], field(99, Buffer.from("a")));
    const number = await refusal(method, Uint8Array.of(0xf8, 0x07, 0x01), messages[method]);
    expect(text).toMatchObject({ ...invalidField, fields: ["#99"] });
    expect(number).toMatchObject({ ...invalidField, fields: ["#127"] });
  });

  test("with a message that is cut short, or without end, is refused", async () => {
    for (const bytes of [[0x0a, 0x05, 0x08], [0x0a], [0xff], [0x08, 0x80], [0x0b], [0x0d, 0x01]]) {
      const error = await refusal(method, messages[method], Uint8Array.from(bytes));
      expect(error).toMatchObject(invalidField);
    }
  });
});

const unknown = field(77, Buffer.from("a"));

test.each<[Method, string, Uint8Array]>([
  ["get", "scope", field(1, unknown)],
  ["set", "scope", field(1, unknown)],
  ["set", "ttl", field(8, unknown)],
  ["delete", "scope", field(1, unknown)],
  ["list", "scope", field(1, unknown)],
  ["update", "increment", field(4, unknown)],
  ["update", "append", field(6, unknown)],
  ["update", "ttl", field(10, unknown)],
  ["transact", "checks[1]", field(1, unknown)],
  ["transact", "checks[1].scope", field(1, field(1, unknown))],
  ["transact", "operations[3]", field(2, unknown)],
  ["transact", "operations[3].set", field(2, field(1, unknown))],
  ["transact", "operations[3].set.scope", field(2, field(1, field(1, unknown)))],
  ["transact", "operations[3].delete", field(2, field(2, unknown))],
  ["transact", "operations[3].update", field(2, field(3, unknown))],
  ["transact", "operations[3].update.increment", field(2, field(3, field(4, unknown)))],
  ["transact", "operations[3].update.append", field(2, field(3, field(6, unknown)))],
  ["batchGet", "names[1]", field(1, unknown)],
  ["batchGet", "names[1].scope", field(1, field(1, unknown))],
  ["deleteRange", "scope", field(1, unknown)],
])("%s with an unknown field in its %s is refused, naming where", async (method, path, part) => {
  const error = await refusal(method, messages[method], part);
  expect(error).toMatchObject({ ...invalidField, fields: [`${path}.#77`] });
});

test("of a oneof that was given twice the last counts", async () => {
  const lost = field(4, field(1, Buffer.from("1")));
  const last = field(6, field(1, Buffer.from("1")));
  await server.client.send("set", Buffer.from(messages.set));
  const fields = toBinary(UpdateRequestSchema, create(UpdateRequestSchema, { ...name, key: "o" }));
  const { valueJson } = await server.client.send("update", Buffer.concat([fields, lost, last]));
  expect(valueJson).toBe("[1]");
});

test("a field of another wire type is refused by its name", async () => {
  // Field 1, kind, as four bytes instead of a varint.
  const fixed = Buffer.from([0x0d, 1, 0, 0, 0]);
  const error = await server.client.send("listScopes", fixed).catch((caught) => caught);
  expect(error).toMatchObject({ ...invalidField, fields: ["kind"] });
});

test("no bytes, well-formed or not, get another answer than a reply or a refusal", async () => {
  const requests = fc.array(damagedBytes(Object.values(messages)), {
    minLength: 30,
    maxLength: 30,
    size: "max",
  });
  await fc.assert(
    fc.asyncProperty(requests, async (all) => {
      const answers = all.flatMap((bytes) => methods.map((method) => answerTo(method, bytes)));
      const unexpected = (await Promise.all(answers)).filter((answer) => !expected.has(answer));
      expect(unexpected).toEqual([]);
    }),
    { numRuns: 20, interruptAfterTimeLimit: 20_000 },
  );
  await server.client.call("set", { ...name, valueJson: "1" });
});

const expected = new Set([
  "OK",
  "INVALID_ARGUMENT pluginstate INVALID_FIELD",
  "INVALID_ARGUMENT pluginstate INVALID_VALUE",
  "INVALID_ARGUMENT pluginstate TOO_LARGE",
  // What was damaged may be another request, well-formed, that fails as things are.
  "ABORTED pluginstate REVISION_MISMATCH",
  "ABORTED pluginstate CHECKS_FAILED",
  "ALREADY_EXISTS pluginstate ENTRY_EXISTS",
  "FAILED_PRECONDITION pluginstate CHECKS_FAILED",
  "FAILED_PRECONDITION pluginstate ENTRY_ABSENT",
  "FAILED_PRECONDITION pluginstate OUT_OF_BOUNDS",
  "FAILED_PRECONDITION pluginstate WRONG_TYPE",
  "INVALID_ARGUMENT pluginstate REQUEST_ID_REUSED",
]);

async function answerTo(method: Method, bytes: Buffer): Promise<string> {
  try {
    await server.client.send(method, bytes);
    return "OK";
  } catch (error) {
    expect(error).toBeInstanceOf(CallError);
    const { codeName, domain, reason, detailBytes } = error as CallError;
    expect(detailBytes).toBeLessThan(6000);
    return `${codeName} ${domain} ${reason}`;
  }
}
