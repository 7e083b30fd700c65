import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import {
  DeleteRequestSchema,
  GetRequestSchema,
  ListRequestSchema,
  SetRequestSchema,
} from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { damagedBytes } from "./support/arbitraries.ts";
import { CallError, failure } from "./support/client.ts";
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

const messages = {
  get: toBinary(GetRequestSchema, create(GetRequestSchema, name)),
  set: toBinary(SetRequestSchema, create(SetRequestSchema, { ...name, valueJson: '{"a": 1}' })),
  delete: toBinary(DeleteRequestSchema, create(DeleteRequestSchema, name)),
  list: toBinary(ListRequestSchema, create(ListRequestSchema, { scope, namespace: "n", ...page })),
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

test.each(["get", "set", "delete", "list"] as const)(
  "%s with a field in its scope that this sidecar doesn't know is refused, naming it",
  async (method) => {
    const error = await refusal(method, messages[method], field(1, field(7, Buffer.from("a"))));
    expect(error).toMatchObject({ ...invalidField, fields: ["scope.#7"] });
  },
);

test("no bytes, well-formed or not, get another answer than a reply or INVALID_ARGUMENT", async () => {
  const requests = fc.array(damagedBytes(Object.values(messages)), {
    minLength: 40,
    maxLength: 40,
    size: "max",
  });
  await fc.assert(
    fc.asyncProperty(requests, async (all) => {
      const answers = all.flatMap((bytes) => methods.map((method) => answerTo(method, bytes)));
      const unexpected = (await Promise.all(answers)).filter((answer) => !expected.has(answer));
      expect(unexpected).toEqual([]);
    }),
    { numRuns: 25 },
  );
  await server.client.call("set", { ...name, valueJson: "1" });
});

const expected = new Set([
  "OK",
  "INVALID_ARGUMENT pluginstate INVALID_FIELD",
  "INVALID_ARGUMENT pluginstate INVALID_VALUE",
  "INVALID_ARGUMENT pluginstate TOO_LARGE",
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
