// Runs what the manifests in deploy/ say, without the systems they are for: every container's and
// unit's own command line and environment, with paths, ports and host names of this machine in place
// of theirs, on a real PostgreSQL.
//
//   node scripts/ci/run-manifests.js DIRECTORY COMPOSE.json
//
// DIRECTORY gets everything that is made; in it are `secrets`, with the two database URLs and the token
// that make-secrets.sh made. COMPOSE.json is the resolved compose.yaml. PATH has grpcurl.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAllDocuments, parseDocument } from "yaml";

const [directory = "", composeFile = ""] = process.argv.slice(2);
const main = resolve("dist/main.js");
const secrets = join(directory, "secrets");
const healthProtos = "node_modules/grpc-health-check/proto";
const service = "pluginstate.v1.PluginStateService";
/** As long as a start may take on a busy machine. */
const patienceMs = 60_000;
const token = readFileSync(join(secrets, "token"), "utf8").trim();
const databaseUrls = {
  "database-url": "sidecar-database-url",
  "owner-database-url": "owner-database-url",
};

await checkCompose(JSON.parse(readFileSync(composeFile, "utf8")).services);
await checkKubernetes();
await checkSystemd();

async function checkCompose(services) {
  const place = makePlace("compose", { "/run/secrets": secrets });
  runOnce("compose: migrate", services.migrate.command, {}, place);
  runOnce("compose: register", services.register.command, {}, place);
  const { command, environment, healthcheck } = services["plugin-state"];
  const sidecar = await serve("compose: plugin-state", command, environment, place);
  requireState(sidecar, place);
  const [, ...check] = healthcheck.test;
  const answer = run(check.map(place), environmentOf(environment, place));
  requireEqual("compose: health check", answer, "SERVING\n");
  await stop(sidecar, services["plugin-state"].stop_grace_period);
}

async function checkKubernetes() {
  const [job] = documents("deploy/kubernetes/migrate.yaml");
  const ownerPlace = makePlace("kubernetes-owner", {
    "/etc/plugin-state": secretDirectory("kubernetes-owner", databaseUrls),
  });
  const { initContainers, containers } = job.spec.template.spec;
  for (const { name, args, env = [] } of [...initContainers, ...containers]) {
    runOnce(`kubernetes: ${name}`, args, variables(env), ownerPlace);
  }

  const [deployment] = documents("deploy/kubernetes/worker.yaml");
  const pod = deployment.spec.template.spec;
  const [container] = pod.initContainers;
  const place = makePlace("kubernetes", {
    "/etc/plugin-state": secretDirectory("kubernetes-sidecar", {
      "database-url": "sidecar-database-url",
      tokens: "token",
    }),
    "0.0.0.0:50052": "0.0.0.0:0",
    "0.0.0.0:9464": "0.0.0.0:0",
  });
  const sidecar = await serve(
    "kubernetes: plugin-state",
    container.args,
    variables(container.env),
    place,
  );
  requireState(sidecar, place, variables(pod.containers[0].env).PLUGIN_STATE_ADDRESS);
  for (const kind of ["startupProbe", "livenessProbe", "readinessProbe"]) {
    const { grpc } = container[kind];
    requirePort(container, "health", grpc.port);
    requireEqual(`kubernetes: ${kind}`, probe(sidecar.ready.healthAddress, grpc), "SERVING");
  }
  await stop(sidecar, pod.terminationGracePeriodSeconds);
}

async function checkSystemd() {
  const migrate = unit("plugin-state-migrate.service");
  const ownerPlace = makePlace("systemd-owner", {
    "%d": secretDirectory("systemd-owner", databaseUrls),
  });
  requireCredentials(migrate, ["database-url", "owner-database-url"]);
  const [, ...migration] = words(migrate.ExecStart);
  runOnce("systemd: migrate", migration, unitEnvironment(migrate), ownerPlace);

  const started = unit("plugin-state@.service");
  requireCredentials(started, ["database-url", "token"]);
  const place = makePlace("systemd", {
    "%i": "acme.notes",
    "%d": secretDirectory("systemd-sidecar", {
      "database-url": "sidecar-database-url",
      token: "token",
    }),
  });
  const socket = place(unit("plugin-state@.socket").ListenStream);
  const [program, ...args] = words(started.ExecStart);
  requireEqual("systemd: program", program, "/usr/bin/plugin-state");
  // It passes on what it is told to, and PATH.
  const environment = Object.entries(unitEnvironment(started));
  const passed = environment.flatMap(([key, value]) => ["-E", `${key}=${place(value)}`]);
  const activate = ["--fdname=state", `--listen=${socket}`, ...passed, process.execPath, main];
  const sidecar = start("systemd: plugin-state", [
    "systemd-socket-activate",
    ...activate,
    ...args.map(place),
  ]);
  // Nothing of it runs before somebody connects, whose call waits for it.
  await until(() => sidecar.log.some((line) => line.startsWith("Listening on")));
  await until(() => isServing(`unix:${socket}`));
  requireState(sidecar, place, `unix:${socket}`);
  await becomesReady(sidecar);
  requireEqual("systemd: address", sidecar.ready.bindings[0].address, "fd:3");
  await stop(sidecar, started.TimeoutStopSec);
  await checkShared(ownerPlace);
}

/** The unit of many plugins, with the bindings of deploy/config: served, and reloaded without one of them. */
async function checkShared(ownerPlace) {
  const add = ["plugin", "add", "acme.mail", "--database-url-file", "%d/owner-database-url"];
  runOnce("systemd: register", add, {}, ownerPlace);
  const shared = unit("plugin-state.service");
  requireCredentials(shared, ["database-url"]);
  const bindings = parseDocument(readFileSync("deploy/config/plugins.yaml", "utf8")).toJS();
  const tokens = bindings.bindings.map(({ token_file: file }) => [file, "token"]);
  const etc = secretDirectory("systemd-shared", {
    "database-url": "sidecar-database-url",
    ...Object.fromEntries(tokens),
  });
  const file = join(etc, "plugins.yaml");
  const write = (those) => writeFileSync(file, JSON.stringify({ bindings: those }));
  const anyPort = bindings.bindings.map((binding) => ({ ...binding, listen: "127.0.0.1:0" }));
  write(anyPort);
  const place = makePlace("systemd-shared", { "/etc/plugin-state": etc, "%d": etc });
  const [, ...args] = words(shared.ExecStart);
  const sidecar = await serve("systemd: shared", args, unitEnvironment(shared), place);
  for (const { address } of sidecar.ready.bindings) requireState(sidecar, place, address);

  write(anyPort.slice(0, 1));
  const [, signal] = words(shared.ExecReload);
  sidecar.child.kill(`SIG${signal.slice(1)}`);
  const isReload = (line) => line.includes("read the configuration again");
  await until(() => sidecar.log.some(isReload));
  const { removed, bindings: left } = JSON.parse(sidecar.log.find(isReload));
  requireEqual("systemd: removed by a reload", removed, 1);
  requireState(sidecar, place, left[0].address);
  await stop(sidecar, shared.TimeoutStopSec);
}

/** Puts this machine's paths and addresses in place of the manifest's. */
function makePlace(name, replacements) {
  const run = join(directory, name);
  mkdirSync(run, { recursive: true });
  const all = {
    ...replacements,
    "/run/plugin-state": run,
    "/usr/bin/plugin-state": main,
    "/app/dist/main.js": main,
  };
  return (text) =>
    Object.entries(all).reduce((sofar, [theirs, ours]) => sofar.replaceAll(theirs, ours), text);
}

/** A directory as Secrets are mounted and credentials are passed on: by each file's name, which secret it is. */
function secretDirectory(name, files) {
  const path = join(directory, `secret-${name}`);
  mkdirSync(path, { recursive: true });
  for (const [file, secret] of Object.entries(files)) {
    copyFileSync(join(secrets, secret), join(path, file));
    chmodSync(join(path, file), 0o440);
  }
  return path;
}

function runOnce(what, args, environment, place) {
  console.log(`--- ${what}: ${args.join(" ")}`);
  const output = run(["node", main, ...args.map(place)], environmentOf(environment, place));
  process.stdout.write(output);
}

function run([program, ...args], env = process.env) {
  return execFileSync(program, args, { encoding: "utf8", env, timeout: patienceMs });
}

async function serve(what, args, environment, place) {
  const command = ["node", main, ...args.map(place)];
  const sidecar = start(what, command, environmentOf(environment, place));
  await becomesReady(sidecar);
  return sidecar;
}

function start(what, [program, ...args], env = process.env) {
  console.log(`--- ${what}: ${program} ${args.join(" ")}`);
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  const sidecar = { what, child, ready: undefined, log: [] };
  createInterface({ input: child.stdout }).on("line", (line) => {
    sidecar.ready = JSON.parse(line);
  });
  createInterface({ input: child.stderr }).on("line", (line) => sidecar.log.push(line));
  process.once("exit", () => child.kill("SIGKILL"));
  return sidecar;
}

async function becomesReady(sidecar) {
  await until(() => sidecar.ready !== undefined || sidecar.child.exitCode !== null);
  if (sidecar.ready?.event !== "ready")
    fail(sidecar, `not ready: ${JSON.stringify(sidecar.ready)}`);
}

/** Writes and reads at an address, as the worker would, with the token; and finds that it needs one. */
function requireState(sidecar, place, address = "unix:/run/plugin-state/state.sock") {
  const target = place(address).replace(/^unix:/, "");
  const transport = address.startsWith("unix:") ? ["-plaintext", "-unix"] : ["-plaintext"];
  const call = (method, request, ...flags) => {
    const command = [...transport, ...flags, "-d", request, target, `${service}/${method}`];
    return spawnSync("grpcurl", command, { encoding: "utf8", timeout: patienceMs });
  };
  const authorized = ["-H", `authorization: Bearer ${token}`];
  const key = '"scope":{"kind":"SCOPE_KIND_INSTANCE"},"key":"manifest"';
  const written = call("Set", `{${key},"valueJson":"1"}`, ...authorized);
  if (written.status !== 0) fail(sidecar, written.stderr);
  const read = call("Get", `{${key}}`, ...authorized);
  if (!read.stdout.includes('"valueJson": "1"')) fail(sidecar, `no entry was read: ${read.stderr}`);
  const { stderr } = call("Get", `{${key}}`);
  if (!stderr.includes("Unauthenticated")) fail(sidecar, `without a token: ${stderr}`);
}

/** What a kubelet asks, by grpc-go as it does. */
function probe(address, { service: name = "" }) {
  const port = address.split(":").at(-1);
  const protos = ["-import-path", healthProtos, "-proto", "health/v1/health.proto"];
  const request = JSON.stringify({ service: name });
  const target = [`127.0.0.1:${port}`, "grpc.health.v1.Health/Check"];
  return JSON.parse(run(["grpcurl", "-plaintext", ...protos, "-d", request, ...target])).status;
}

/** Stops within the time that the manifest gives, and without a warning in the log. */
async function stop(sidecar, seconds) {
  const exit = once(sidecar.child, "exit");
  sidecar.child.kill("SIGTERM");
  const graceMs = Number.parseInt(seconds, 10) * 1000;
  const [code] = await Promise.race([exit, sleep(graceMs, ["still running"], { ref: false })]);
  if (code !== 0) fail(sidecar, `exit code ${code}`);
  const warnings = sidecar.log.filter((line) => /"level":"(warn|error|fatal)"/.test(line));
  // Calls without their token are tried here.
  if (warnings.some((line) => !line.includes('"refusal":"token"'))) {
    fail(sidecar, "it warned");
  }
}

/** Ours, without what would lead the sidecar elsewhere, and with what the manifest says. */
function environmentOf(environment, place) {
  const ours = Object.entries(process.env).filter(
    ([name]) => name !== "DATABASE_URL" && !/^(PG|PLUGIN_STATE_)/.test(name),
  );
  const theirs = Object.entries(environment ?? {}).map(([name, value]) => [name, place(value)]);
  return Object.fromEntries([...ours, ...theirs]);
}

function documents(file) {
  return parseAllDocuments(readFileSync(file, "utf8"), { merge: true }).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS();
  });
}

function variables(env) {
  return Object.fromEntries(env.map(({ name, value }) => [name, value]));
}

function requirePort({ ports }, name, number) {
  const port = ports.find(({ containerPort }) => containerPort === number);
  requireEqual(`port ${number}`, port?.name, name);
}

/** A unit's settings; one that is given more than once has all the words. */
function unit(name) {
  const settings = {};
  for (const line of readFileSync(`deploy/systemd/${name}`, "utf8").split("\n")) {
    const [, key, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (key !== undefined) settings[key] = key in settings ? `${settings[key]} ${value}` : value;
  }
  return settings;
}

function unitEnvironment({ Environment = "" }) {
  return Object.fromEntries(words(Environment).map((word) => word.split(/=(.*)/s).slice(0, 2)));
}

/** The words of a setting; quotes keep one together. */
function words(text) {
  return [...text.matchAll(/(?:"[^"]*"|[^\s"])+/g)].map(([word]) => word.replaceAll('"', ""));
}

function requireCredentials({ LoadCredential = "" }, names) {
  const loaded = words(LoadCredential).map((word) => word.split(":")[0]);
  requireEqual("systemd: credentials", loaded.join(), names.join());
}

function isServing(address) {
  const asked = spawnSync("node", [main, "health", "--address", address], { encoding: "utf8" });
  return asked.stdout === "SERVING\n";
}

async function until(isTrue) {
  const deadline = Date.now() + patienceMs;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`not within ${patienceMs} ms: ${isTrue}`);
    await sleep(50);
  }
}

function requireEqual(what, found, wanted) {
  if (found !== wanted) throw new Error(`${what}: ${found} instead of ${wanted}`);
  console.log(`${what}: ${wanted}`.trim());
}

function fail({ what, log }, why) {
  throw new Error(`${what}: ${why}\n${log.join("\n")}`);
}
