import { fileURLToPath } from "node:url";
import { create, type DescMethod, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../src/gen/pluginstate/v1/entry_pb.ts";
import { PluginStateService } from "../src/gen/pluginstate/v1/plugin_state_service_pb.ts";
import { Running } from "./command/run-command.ts";
import { type TestDatabase, testDatabase } from "./support/database.ts";
import { holdWrites } from "./support/hold-writes.ts";
import { scrape } from "./support/metrics.ts";
import { FaultProxy } from "./support/proxy.ts";

// One marker stands in every value, key, scope id, namespace, token, password and request id that the sidecar
// is given, and calls fail in every way they can: none of it may come out again.

const marker = "s3cr3t-marker";
const mainScript = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const sdk = fileURLToPath(new URL("tracing/otel.mjs", import.meta.url));

type Methods = typeof PluginStateService.method;
type Requests = { [K in keyof Methods]: MessageInitShape<Methods[K]["input"]> };

const scope = { kind: ScopeKind.PROJECT, id: marker };
const name = { scope, namespace: marker, key: marker };
const valueJson = JSON.stringify({ [marker]: marker });
const long = marker.repeat(200);
const uuid = "00000000-0000-4000-8000-000000000001";

/** Requests that are refused, each for another reason, with the code that they get. */
const refused: readonly (readonly [
  code: string,
  { [K in keyof Methods]: readonly [K, Requests[K]] }[keyof Methods],
])[] = [
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `{"${marker}": ` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `"${marker}\\u0000"` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `"${marker}\\ud800"` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `${marker}` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `"${"x".repeat(2048)}${marker}"` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson: `1e${"9".repeat(30)}` }]],
  ["INVALID_ARGUMENT", ["set", { ...name, key: long, valueJson }]],
  ["INVALID_ARGUMENT", ["set", { ...name, namespace: long, valueJson }]],
  ["INVALID_ARGUMENT", ["set", { ...name, scope: { ...scope, id: long }, valueJson }]],
  ["INVALID_ARGUMENT", ["set", { ...name, key: `${marker}\0`, valueJson }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson, requestId: marker }]],
  ["INVALID_ARGUMENT", ["set", { ...name, valueJson, ttl: { seconds: -1n } }]],
  ["INVALID_ARGUMENT", ["get", { ...name, scope: { kind: ScopeKind.INSTANCE, id: marker } }]],
  ["INVALID_ARGUMENT", ["get", { ...name, scope: { kind: 99 as ScopeKind, id: marker } }]],
  ["INVALID_ARGUMENT", ["list", { scope, namespace: marker, pageToken: marker }]],
  ["INVALID_ARGUMENT", ["list", { scope, start: marker, startAfter: marker }]],
  ["INVALID_ARGUMENT", ["listScopes", { pageToken: marker }]],
  ["INVALID_ARGUMENT", ["deleteRange", { scope, namespace: marker, requestId: marker }]],
  ["INVALID_ARGUMENT", ["batchGet", { names: [{ ...name, key: long }] }]],
  ["INVALID_ARGUMENT", ["update", { ...name, change: { case: "mergePatch", value: marker } }]],
  [
    "INVALID_ARGUMENT",
    ["update", { ...name, change: { case: "increment", value: { by: marker } } }],
  ],
  ["ABORTED", ["set", { ...name, valueJson, condition: { case: "ifRevision", value: 77n } }]],
  ["ALREADY_EXISTS", ["set", { ...name, valueJson, condition: { case: "ifAbsent", value: true } }]],
  [
    "FAILED_PRECONDITION",
    ["delete", { ...name, key: `${marker}2`, condition: { case: "ifPresent", value: true } }],
  ],
  [
    "FAILED_PRECONDITION",
    ["update", { ...name, change: { case: "increment", value: { by: "1" } } }],
  ],
  [
    "FAILED_PRECONDITION",
    ["update", { ...name, change: { case: "append", value: { valueJson } } }],
  ],
  [
    "ABORTED",
    [
      "transact",
      {
        checks: [{ ...name, condition: { case: "ifAbsent", value: true } }],
        operations: [{ operation: { case: "set", value: { ...name, valueJson } } }],
      },
    ],
  ],
  ["RESOURCE_EXHAUSTED", ["set", { ...name, key: `${marker}-beyond-the-quota`, valueJson }]],
  ["RESOURCE_EXHAUSTED", ["set", { ...name, valueJson: `"${marker.repeat(1_000_000)}"` }]],
];

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
});

afterAll(() => database[Symbol.asyncDispose]());

/** A sidecar that logs all it can, whose database is reached through a proxy and with a password. */
async function serve(...flags: string[]) {
  const proxy = await FaultProxy.before(database.url);
  const url = new URL(proxy.through(database.url));
  url.password = marker;
  const bindings = ["--plugin", "demo", "--listen", "127.0.0.1:0"];
  const watched = [
    "--metrics-listen",
    "127.0.0.1:0",
    "--log-level",
    "trace",
    "--slow-call-ms",
    "0",
  ];
  const sidecar = new Running(mainScript, [...bindings, ...watched, ...flags], {
    DATABASE_URL: url.href,
    NODE_OPTIONS: `--import ${sdk}`,
  });
  await sidecar.printed("\n");
  const ready = JSON.parse(sidecar.stdout);
  const client = new Client(ready.bindings[0].address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  onTestFinished(async () => {
    client.close();
    await proxy[Symbol.asyncDispose]();
  });
  const metrics = async () => (await scrape(ready.metrics)).text;
  return { sidecar, proxy, client, metrics };
}

/** All that came back of a call that must fail. */
function failure(client: Client, method: DescMethod, bytes: Uint8Array, deadlineMs = 20_000) {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${marker}`);
  return new Promise<{ code: string; told: string }>((resolve, reject) => {
    client.makeUnaryRequest(
      `/${PluginStateService.typeName}/${method.name}`,
      (request: Buffer) => request,
      (reply: Buffer) => reply,
      Buffer.from(bytes),
      metadata,
      { deadline: Date.now() + deadlineMs },
      (error: ServiceError | null) => {
        if (error === null) {
          reject(new Error(`${method.name} succeeded`));
          return;
        }
        const trailers = Object.values(error.metadata.getMap()).map(String);
        const code = error.message.split(" ")[1]?.replace(":", "") ?? "";
        resolve({ code, told: [error.details, ...trailers].join("\n") });
      },
    );
  });
}

function encoded<K extends keyof Methods>(method: K, request: Requests[K]): Uint8Array {
  const { input } = PluginStateService.method[method];
  return toBinary(input, create(input as Methods[K]["input"], request));
}

/** Stops the sidecar and looks for the marker in all it ever said. */
async function expectSilence(sidecar: Running, told: readonly string[]): Promise<void> {
  sidecar.child.kill("SIGTERM");
  const { stdout, stderr } = await sidecar.ended();
  const texts = [
    ...stdout.split("\n"),
    ...stderr.split("\n"),
    ...told.flatMap((it) => it.split("\n")),
  ];
  expect(texts.length).toBeGreaterThan(10);
  expect(texts.filter((text) => text.includes(marker))).toEqual([]);
}

test("refused calls of every kind: no log line, error, metric or span holds what was sent", async () => {
  const { sidecar, client, metrics } = await serve(
    "--max-value-bytes",
    "2048",
    "--quota-entries",
    "1",
  );
  await new Promise<void>((resolve, reject) => {
    const bytes = Buffer.from(encoded("set", { ...name, valueJson, requestId: uuid }));
    const asIs = (buffer: Buffer) => buffer;
    const path = `/${PluginStateService.typeName}/Set`;
    client.makeUnaryRequest(path, asIs, asIs, bytes, (error) =>
      error ? reject(error) : resolve(),
    );
  });
  const told: string[] = [];
  const codes: string[] = [];
  for (const [, [method, request]] of refused) {
    // Each request is of its method, which the compiler can't follow here.
    const bytes = encoded(method, request as never);
    const answer = await failure(client, PluginStateService.method[method], bytes);
    told.push(answer.told);
    codes.push(answer.code);
  }
  expect(codes).toEqual(refused.map(([code]) => code));
  const { get, set } = PluginStateService.method;
  const unknownField = Buffer.from([0xfa, 0x01, marker.length, ...Buffer.from(marker)]);
  const malformed = Buffer.from([0x1a, 0x7f, ...Buffer.from(marker)]);
  const reused = encoded("set", { ...name, valueJson: `"other ${marker}"`, requestId: uuid });
  for (const [method, bytes] of [
    [get, unknownField],
    [get, malformed],
    [set, reused],
  ] as const) {
    told.push((await failure(client, method, bytes)).told);
  }
  told.push(await metrics());
  await expectSilence(sidecar, told);
});

test("a database that refuses, quoting values, is logged without them", async () => {
  await database.query(`
    create function quote_it() returns trigger language plpgsql as $$
      begin
        raise exception 'no % for %', new.value_json, new.state_key
          using errcode = substring(new.state_key from '\\w{5}$'), detail = new.scope_id, hint = new.namespace;
      end $$;
    create trigger quote_it before insert on plugin_sidecar.plugin_state
      for each row execute function quote_it()`);
  onTestFinished(() => database.query("drop function quote_it cascade").then(() => undefined));
  const { sidecar, client } = await serve();
  const told: string[] = [];
  // What a trigger raises by default, data exceptions, constraints, and codes that nobody knows.
  for (const state of [
    "P0001",
    "22000",
    "22012",
    "22P02",
    "23502",
    "23514",
    "23505",
    "XX000",
    "ZZ999",
    "42501",
  ]) {
    const request = { ...name, key: `${marker}-${state}`, valueJson };
    told.push((await failure(client, PluginStateService.method.set, encoded("set", request))).told);
  }
  expect(sidecar.stderr).toContain('"code":"P0001"');
  await expectSilence(sidecar, told);
});

test("a database that goes away, in the middle of writes too, is logged without its password and the writes", async () => {
  const { sidecar, client, proxy, metrics } = await serve("--database-timeout-ms", "3000");
  const { get, set, list, deleteRange } = PluginStateService.method;
  const write = encoded("set", { ...name, valueJson });
  const told: string[] = [];
  const fail = async (method: DescMethod, bytes: Uint8Array, deadlineMs?: number) => {
    const { code, told: text } = await failure(client, method, bytes, deadlineMs);
    told.push(text);
    return code;
  };
  const held = await holdWrites(database);
  const unknown = fail(set, write);
  await held.areWaiting(1);
  expect(await fail(set, write, 200)).toBe("DEADLINE_EXCEEDED");
  await proxy.close();
  expect(await unknown).toBe("UNKNOWN");
  await held.release();
  expect(await fail(get, encoded("get", name))).toBe("UNAVAILABLE");
  expect(await fail(set, write)).toBe("UNAVAILABLE");
  expect(await fail(list, encoded("list", { scope, prefix: marker }))).toBe("UNAVAILABLE");
  expect(await fail(deleteRange, encoded("deleteRange", { scope, namespace: marker }))).toBe(
    "UNAVAILABLE",
  );
  await sidecar.logged("the database doesn't serve");
  told.push(await metrics());
  await expectSilence(sidecar, told);
});

test("a start that fails doesn't show the database's password or the URL's query", async () => {
  const url = new URL(database.url);
  url.password = marker;
  url.searchParams.set("options", "-c no_such_setting=1");
  const sidecar = new Running(
    mainScript,
    ["--plugin", "demo", "--listen", "127.0.0.1:0", "--log-level", "trace", "--fail-fast"],
    {
      DATABASE_URL: url.href,
    },
  );
  const { code, stdout, stderr } = await sidecar.ended();
  expect(code).not.toBe(0);
  expect(`${stdout}${stderr}`).not.toContain(marker);
});
