// A worker on a stock grpc-js client: writes of every sort without a pause, through whatever happens to
// the sidecar, with the retry policy it is given and (but on an old Node.js) nothing of its own. Keeps
// what was acknowledged.
//
//   node retrying-worker.js '{"address", "serviceConfig", "writers", "pauseMs"}'
//
// Each line on stdin is answered with a line of JSON, the counts so far; "stop" with all that it was told,
// after its last call. See worker-process.ts.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { PluginStateService } from "../../dist/gen/pluginstate/v1/plugin_state_service_pb.js";

/** Of one call, all its attempts together. */
const deadlineMs = 60_000;
const keysOfAWriter = 50;
const itemsOfAList = 50;
const instanceScope = { kind: 1 };

const { address, serviceConfig, writers, pauseMs } = JSON.parse(process.argv[2]);
const client = new Client(address, credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify(serviceConfig),
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
});

const told = { acknowledged: 0, retried: 0, failed: [], sets: {}, counters: {}, lists: {} };
let isOver = false;

/**
 * Node.js up to 20.16 and 22.12 says INTERNAL to calls that were begun but not sent when a GOAWAY came,
 * and sometimes to others on that connection, where later ones try again unasked. docs/hosting.md:
 * repeat them, with the same request id.
 */
const [major, minor] = process.versions.node.split(".").map(Number);
const isOldNode = (major === 20 && minor < 18) || major === 21 || (major === 22 && minor < 13);
const isGivenUp = ({ code, details }) =>
  isOldNode && code === status.INTERNAL && /^Received RST_STREAM with code [12]\b/.test(details);

/**
 * A sidecar that is killed in the middle of a reply: a call whose reply has begun is repeated by no retry
 * policy. docs/hosting.md: repeat it, with the same request id. Of one that drains it never happens.
 */
const expectsKills = process.env["WORKER_EXPECTS_KILLS"] === "true";
const isHalfAnswered = (hasBegun, { code }) =>
  expectsKills && hasBegun && code === status.UNAVAILABLE;

/** Resolves with the reply, or with undefined after noting how it failed. */
function call(name, request) {
  const method = PluginStateService.method[name];
  const message = create(method.input, {
    scope: instanceScope,
    requestId: randomUUID(),
    ...request,
  });
  return send(name, method, Buffer.from(toBinary(method.input, message)));
}

function send(name, method, bytes) {
  const metadata = new Metadata({ waitForReady: true });
  return new Promise((resolve) => {
    let hasBegun = false;
    const sent = client.makeUnaryRequest(
      `/${PluginStateService.typeName}/${method.name}`,
      (request) => request,
      (reply) => fromBinary(method.output, reply),
      bytes,
      metadata,
      { deadline: Date.now() + deadlineMs },
      (error, reply) => {
        if (error !== null && (isGivenUp(error) || isHalfAnswered(hasBegun, error))) {
          resolve(send(name, method, bytes));
          return;
        }
        if (error === null) {
          told.acknowledged += 1;
        } else {
          told.failed.push(`${name}: ${status[error.code]}: ${error.details}`);
        }
        resolve(reply);
      },
    );
    sent.on("metadata", (initial) => {
      hasBegun = true;
      if (initial.get("grpc-previous-rpc-attempts").length > 0) told.retried += 1;
    });
  });
}

/** One loop: a Set, an increment that all share, one of its own, an append. */
async function write(writer) {
  for (let n = 0; !isOver; n++) {
    const key = `set/${writer}/${n % keysOfAWriter}`;
    if (await call("set", { key, valueJson: `"${n}"` })) told.sets[key] = `"${n}"`;
    await increment("counter/shared");
    const own = `counter/${writer}`;
    const counted = await increment(own);
    if (counted !== undefined && counted !== `${told.counters[own]}`) {
      told.failed.push(`${own} is ${counted} after ${told.counters[own]} increments`);
    }
    await append(`list/${writer}/${Math.floor(n / itemsOfAList)}`, n);
    if (pauseMs > 0) await sleep(pauseMs);
  }
}

async function increment(key) {
  const reply = await call("update", { key, change: { case: "increment", value: {} } });
  if (reply === undefined) return undefined;
  told.counters[key] = (told.counters[key] ?? 0) + 1;
  return reply.valueJson;
}

async function append(key, n) {
  const change = { case: "append", value: { valueJson: `${n}` } };
  if ((await call("update", { key, change })) === undefined) return;
  told.lists[key] ??= [];
  told.lists[key].push(n);
}

function print(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

const loops = Array.from({ length: writers }, (_, writer) => write(writer));
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "stop") break;
  const { acknowledged, retried, failed } = told;
  print({ acknowledged, retried, failed });
}
isOver = true;
await Promise.all(loops);
print(told);
client.close();
