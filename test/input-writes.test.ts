import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import type {
  DeleteRequestSchema,
  OperationSchema,
  SetRequestSchema,
  TransactRequestSchema,
  UpdateRequestSchema,
} from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { failure } from "./support/client.ts";
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

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
type SetFields = MessageInitShape<typeof SetRequestSchema>;
type DeleteFields = MessageInitShape<typeof DeleteRequestSchema>;
type UpdateFields = MessageInitShape<typeof UpdateRequestSchema>;
type Change = NonNullable<UpdateFields["change"]>;

const set = (fields: object): SetFields => ({ ...name, valueJson: "1", ...fields });
const del = (fields: object): DeleteFields => ({ ...name, ...fields });
const update = (change: Change, fields: object = {}): UpdateFields => ({
  ...name,
  change,
  ...fields,
});
const increment = (value: Extract<Change, { case?: "increment" }>["value"]): Change => ({
  case: "increment",
  value,
});
const append = (value: Extract<Change, { case?: "append" }>["value"]): Change => ({
  case: "append",
  value,
});
const mergePatch = (value: string): Change => ({ case: "mergePatch", value });
const ttl = (seconds: bigint, nanos = 0) => ({ ttl: { seconds, nanos } });
const never = { ifAbsent: { condition: { case: "ifAbsent", value: false } } } as const;

const century = 100n * 365n * 24n * 3600n;
const tooDeep = (levels: number) => "[".repeat(levels) + "]".repeat(levels);

type Case = readonly [
  operation: NonNullable<MessageInitShape<typeof OperationSchema>["operation"]>,
  field: string,
  reason: string,
];
const ofSet = (fields: object, field: string, reason = "INVALID_FIELD"): Case => [
  { case: "set", value: set(fields) },
  field,
  reason,
];
const ofDelete = (fields: object, field: string, reason = "INVALID_FIELD"): Case => [
  { case: "delete", value: del(fields) },
  field,
  reason,
];
const ofUpdate = (value: UpdateFields, field: string, reason = "INVALID_FIELD"): Case => [
  { case: "update", value },
  field,
  reason,
];

/** Bad operations, each with what its refusal names: alone, and as one of several. */
const cases: Case[] = [
  ofSet({ valueJson: "" }, "value_json"),
  ofSet({ valueJson: "[1,]" }, "value_json", "INVALID_VALUE"),
  ofSet({ valueJson: tooDeep(1001) }, "value_json", "INVALID_VALUE"),
  ofSet({ valueJson: `"${"a".repeat(4 * 1024 * 1024)}"` }, "value_json", "TOO_LARGE"),
  ofSet({ key: "" }, "key"),
  ofSet({ scope: { kind: ScopeKind.RUN } }, "scope.id"),
  ofSet(never.ifAbsent, "if_absent"),
  ofSet(ttl(0n), "ttl"),
  ofSet(ttl(-1n), "ttl"),
  ofSet(ttl(0n, -1), "ttl"),
  ofSet(ttl(1n, -1), "ttl"),
  ofSet(ttl(-1n, 1), "ttl"),
  ofSet(ttl(1n, 1_000_000_000), "ttl"),
  ofSet(ttl(century, 1), "ttl"),
  ofSet(ttl(2n ** 63n - 1n), "ttl"),
  ofDelete({ key: "k".repeat(1025) }, "key", "TOO_LARGE"),
  ofDelete({ namespace: "\0" }, "namespace"),
  ofDelete({ condition: { case: "ifPresent", value: false } }, "if_present"),
  ofDelete({ condition: { case: "ifRevision", value: -1n } }, "if_revision"),
  ofUpdate(name, "change"),
  ofUpdate(update(increment({}), ttl(0n)), "ttl"),
  ofUpdate(update(increment({}), { scope: undefined }), "scope"),
  ofUpdate(update(increment({}), never.ifAbsent), "if_absent"),
  ofUpdate(update(increment({ by: "one" })), "increment.by"),
  ofUpdate(update(increment({ by: '"1"' })), "increment.by"),
  ofUpdate(update(increment({ by: "null" })), "increment.by"),
  ofUpdate(update(increment({ by: " 1" })), "increment.by"),
  ofUpdate(update(increment({ by: "+1" })), "increment.by"),
  ofUpdate(update(increment({ by: ".5" })), "increment.by"),
  ofUpdate(update(increment({ by: "NaN" })), "increment.by"),
  ofUpdate(update(increment({ by: "Infinity" })), "increment.by"),
  ofUpdate(update(increment({ by: "-Infinity" })), "increment.by"),
  ofUpdate(update(increment({ by: "01" })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ by: "1_000" })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ by: "0x10" })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ by: "1,2" })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ by: '1,"initial":5' })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ by: "1e131073" })), "increment.by", "INVALID_VALUE"),
  ofUpdate(update(increment({ initial: "{}" })), "increment.initial"),
  ofUpdate(update(increment({ min: "low" })), "increment.min"),
  ofUpdate(update(increment({ max: "1 2" })), "increment.max", "INVALID_VALUE"),
  ofUpdate(update(increment({ clamp: true })), "increment.clamp"),
  ofUpdate(update(mergePatch("")), "merge_patch"),
  ofUpdate(update(mergePatch("{a: 1}")), "merge_patch", "INVALID_VALUE"),
  ofUpdate(update(mergePatch('{"a":"\\u0000"}')), "merge_patch", "INVALID_VALUE"),
  ofUpdate(update(append({})), "append.value_json"),
  ofUpdate(update(append({ valueJson: "1}" })), "append.value_json", "INVALID_VALUE"),
  ofUpdate(update(append({ valueJson: '1,"unique":true' })), "append.value_json", "INVALID_VALUE"),
  ofUpdate(update(append({ valueJson: tooDeep(1000) })), "append.value_json", "INVALID_VALUE"),
  ofUpdate(update(append({ valueJson: "1", maxLength: -1 })), "append.max_length"),
];

/** Sends an operation by itself. */
function alone({ case: method, value }: Case[0]) {
  switch (method) {
    case "set":
      return server.client.call("set", value);
    case "delete":
      return server.client.call("delete", value);
    case "update":
      return server.client.call("update", value);
    case undefined:
      throw new Error("no operation");
  }
}

const transact = (request: MessageInitShape<typeof TransactRequestSchema>) =>
  server.client.call("transact", request);
const good = { operation: { case: "set", value: set({}) } } as const;
const codeName = "INVALID_ARGUMENT";

/** What is bad about an operation, short enough for a test's name. */
function shown({ value }: Case[0]): string {
  const { scope: _, ...fields }: Record<string, unknown> = { ...value };
  const text = JSON.stringify(fields, (_name, part) =>
    typeof part === "bigint" ? `${part}n` : part,
  );
  return text.length < 80 ? text : `${text.slice(0, 80)}…`;
}

test.each(
  cases.map(([operation, field, reason]) => {
    return [operation.case, shown(operation), field, reason, operation] as const;
  }),
)(
  "%s %s is refused for its %s, alone and in a Transact",
  async (method, _, field, reason, operation) => {
    const before = await server.client.call("get", name);
    const error = await failure(alone(operation));
    const inside = await failure(transact({ operations: [good, good, { operation }] }));
    expect(error).toMatchObject({ codeName, reason, fields: [field] });
    const path = `operations[2].${method}.${field}`;
    expect(inside).toMatchObject({ codeName, reason, fields: [path] });
    expect(inside.message).toContain(path);
    expect(inside.detailBytes).toBeLessThan(6000);
    expect(await server.client.call("get", name)).toEqual(before);
  },
);

test("a time to live of a nanosecond, and of 100 years, is taken", async () => {
  await alone({ case: "set", value: set(ttl(0n, 1)) });
  await alone({ case: "set", value: set(ttl(century)) });
  const { entry } = await server.client.call("get", name);
  const years = (Number(entry!.expireTime!.seconds) - Date.now() / 1000) / Number(century / 100n);
  expect(years).toBeCloseTo(100, 1);
});

test("an item nested 999 levels deep is taken", async () => {
  const change = append({ valueJson: tooDeep(999) });
  const { valueJson } = await server.client.call("update", { ...name, key: "deep", change });
  expect(valueJson).toBe(tooDeep(1000));
});

test.each<[string, Parameters<typeof transact>[0], string]>([
  ["an empty operation", { operations: [good, {}] }, "operations[1].operation"],
  ["an empty check", { checks: [{}] }, "checks[0].condition"],
  ["a check of no condition", { checks: [name] }, "checks[0].condition"],
  ["a check of no key", { checks: [{ ...check(), key: "" }] }, "checks[0].key"],
  [
    "a check of no scope",
    { checks: [check(), { ...check(), scope: undefined }] },
    "checks[1].scope",
  ],
  [
    "a check of a false condition",
    { checks: [{ ...name, ...never.ifAbsent }] },
    "checks[0].if_absent",
  ],
  ["a bad request_id", { operations: [good], requestId: "x" }, "request_id"],
  ...(["set", "delete", "update"] as const).map(
    (method): [string, Parameters<typeof transact>[0], string] => {
      const requestId = "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77";
      const value = { ...update(increment({})), valueJson: "1", requestId };
      const operation = { case: method, value } as typeof good.operation;
      return [
        `a request_id in a ${method}`,
        { operations: [{ operation }], requestId },
        `operations[0].${method}.request_id`,
      ];
    },
  ),
])("a Transact with %s is refused, naming its field", async (_, request, field) => {
  const error = await failure(transact(request));
  expect(error).toMatchObject({ codeName, reason: "INVALID_FIELD", fields: [field] });
});

function check() {
  return { ...name, condition: { case: "ifPresent", value: true } } as const;
}

test.each([
  "x",
  " 1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77",
  "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b7",
  "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b777",
  "{1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b77}",
  "1f0b3a4c-6f0e-4d3a-9a39-0c2f3e1d5b7g",
  "\0",
])("%j is no request_id", async (requestId) => {
  const change = increment({});
  const calls = [
    server.client.call("set", set({ requestId })),
    server.client.call("delete", del({ requestId })),
    server.client.call("update", update(change, { requestId })),
  ];
  for (const call of calls) {
    const error = await failure(call);
    expect(error).toMatchObject({ codeName, reason: "INVALID_FIELD", fields: ["request_id"] });
  }
});
