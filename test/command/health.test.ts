import { mkdtempSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server as NetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation, type ServingStatusMap } from "grpc-health-check";
import { expect, onTestFinished, test } from "vitest";
import { createLog } from "../../src/log.ts";
import { startSidecar } from "../../src/server.ts";
import {
  type Certificate,
  makeAuthority,
  makeCertificate,
  writeCertificate,
} from "../support/certificates.ts";
import { testDatabase } from "../support/database.ts";
import { configFor } from "../support/sidecar.ts";
import { run } from "./run-command.ts";

/** A gRPC server with the reference implementation of health; returns its port. */
async function healthServer(
  statuses: ServingStatusMap,
  address = "127.0.0.1:0",
  credentials = ServerCredentials.createInsecure(),
): Promise<number> {
  const server = new Server();
  new HealthImplementation(statuses).addToServer(server);
  onTestFinished(() => server.forceShutdown());
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}

/** A server that accepts connections and never says a word. */
async function silentServer(): Promise<number> {
  const server: NetServer = createServer();
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  return address.port;
}

test("prints SERVING and exits with 0", async () => {
  const port = await healthServer({ "": "SERVING" });

  const ended = await run(["health", "--address", `127.0.0.1:${port}`]);

  expect(ended).toEqual({ code: 0, stdout: "SERVING\n", stderr: "" });
});

test("prints NOT_SERVING and exits with 1", async () => {
  const port = await healthServer({ "": "NOT_SERVING" });

  const ended = await run(["health"], { PLUGIN_STATE_ADDRESS: `127.0.0.1:${port}` });

  expect(ended).toEqual({ code: 1, stdout: "NOT_SERVING\n", stderr: "" });
});

test("asks about one service", async () => {
  const port = await healthServer({ "": "NOT_SERVING", "a.Service": "SERVING" });
  const address = `127.0.0.1:${port}`;

  expect(await run(["health", "--address", address, "--service", "a.Service"])).toMatchObject({
    code: 0,
  });
  expect(await run(["health", "--address", address, "--service", "b.Service"])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("NOT_FOUND"),
  });
});

test("asks for one plugin of several by --service plugin/KEY", async () => {
  const database = await testDatabase();
  onTestFinished(() => database[Symbol.asyncDispose]());
  await database.addPlugin("acme.notes");
  const config = configFor(database.url, ["acme.notes", "acme.later"]);
  const sidecar = await startSidecar(config, createLog("silent"), new AbortController().signal);
  onTestFinished(() => sidecar.stop());
  const { address } = sidecar.bindings[0]!;
  const ask = (...service: string[]) => run(["health", "--address", address, ...service]);

  expect(await ask()).toMatchObject({ code: 0, stdout: "SERVING\n" });
  expect(await ask("--service", "plugin/acme.notes")).toMatchObject({ code: 0 });
  expect(await ask("--service", "plugin/acme.later")).toMatchObject({
    code: 1,
    stdout: "NOT_SERVING\n",
  });
});

test("asks over a unix socket, in both spellings", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "plugin-state-")), "a.sock");
  await healthServer({ "": "SERVING" }, `unix:${path}`);

  expect(await run(["health", "--address", `unix:${path}`])).toMatchObject({ code: 0 });
  expect(await run(["health", "--address", `unix://${path}`])).toMatchObject({ code: 0 });
});

test("a sidecar that isn't there is exit code 1, at once", async () => {
  const ended = await run(["health", "--address", "unix:/nowhere/a.sock"]);

  expect(ended).toMatchObject({ code: 1, stdout: "" });
  expect(ended.stderr).toContain("no answer from unix:///nowhere/a.sock: UNAVAILABLE");
});

test("a sidecar that says nothing is exit code 1 after the timeout", async () => {
  const port = await silentServer();

  const ended = await run(["health", "--address", `127.0.0.1:${port}`, "--timeout-ms", "200"]);

  expect(ended.code).toBe(1);
  expect(ended.stderr).toContain("DEADLINE_EXCEEDED");
});

test("who answers with TLS, or hangs up, may be a sidecar to be asked elsewhere", async () => {
  const server: NetServer = createServer((socket) => socket.destroy());
  onTestFinished(() => void server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;

  const ended = await run(["health", "--address", `127.0.0.1:${port}`]);

  expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining("--health-listen") });
});

test("a proxy in the environment is for other traffic", async () => {
  const port = await healthServer({ "": "SERVING" });
  const proxy = `http://127.0.0.1:${await silentServer()}`;

  const ended = await run(["health", "--address", `127.0.0.1:${port}`], {
    http_proxy: proxy,
    grpc_proxy: proxy,
  });

  expect(ended).toMatchObject({ code: 0 });
});

interface TlsServerOptions {
  readonly address?: string;
  /** It demands a certificate of this one. */
  readonly clientCa?: Certificate;
}

/** A server with a certificate for localhost and 127.0.0.1. */
async function tlsServer(
  authority: Certificate,
  { address = "127.0.0.1:0", clientCa }: TlsServerOptions = {},
): Promise<number> {
  const { cert, key } = await makeCertificate(authority, "sidecar");
  const credentials = ServerCredentials.createSsl(
    clientCa === undefined ? null : Buffer.from(clientCa.cert),
    [{ cert_chain: Buffer.from(cert), private_key: Buffer.from(key) }],
    clientCa !== undefined,
  );
  return healthServer({ "": "SERVING" }, address, credentials);
}

function temporaryFile(content: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "plugin-state-")), "file.pem");
  writeFileSync(path, content);
  return path;
}

test("asks over TLS, by flags or by the environment", async () => {
  const authority = await makeAuthority();
  const address = `127.0.0.1:${await tlsServer(authority)}`;
  const caFile = temporaryFile(authority.cert);

  expect(await run(["health", "--address", address, "--tls-ca-file", caFile])).toEqual({
    code: 0,
    stdout: "SERVING\n",
    stderr: "",
  });
  const environment = {
    PLUGIN_STATE_ADDRESS: address,
    PLUGIN_STATE_HEALTH_TLS_CA_FILE: caFile,
    PLUGIN_STATE_HEALTH_TLS_SERVER_NAME: "localhost",
  };
  expect(await run(["health"], environment)).toMatchObject({ code: 0 });
});

test("asks over TLS on a unix socket, whose certificate is for localhost", async () => {
  const authority = await makeAuthority();
  const path = join(mkdtempSync(join(tmpdir(), "plugin-state-")), "a.sock");
  await tlsServer(authority, { address: `unix:${path}` });
  const ask = ["health", "--address", `unix:${path}`, "--tls-ca-file"];

  expect(await run([...ask, temporaryFile(authority.cert)])).toMatchObject({ code: 0 });
});

test("a sidecar with TLS whose certificate isn't of the CA, or is for another name, isn't trusted", async () => {
  const authority = await makeAuthority();
  const ask = ["health", "--address", `127.0.0.1:${await tlsServer(authority)}`];
  const caFile = temporaryFile(authority.cert);
  const strangersFile = temporaryFile((await makeAuthority()).cert);

  for (const flags of [
    ["--tls-ca-file", strangersFile],
    ["--tls-ca-file", caFile, "--tls-server-name", "other.example"],
    ["--tls-ca-file", caFile, "--tls-server-name", "127.0.0.2"],
    // Of the CAs that Node.js trusts.
    ["--tls-server-name", "localhost"],
    [],
  ]) {
    const ended = await run([...ask, ...flags]);
    expect(ended, flags.join(" ")).toMatchObject({ code: 1, stdout: "" });
    expect(ended.stderr).toContain("no answer from");
  }
});

test("shows a certificate to a sidecar that demands one", async () => {
  const authority = await makeAuthority();
  const clientCa = await makeAuthority();
  const address = `127.0.0.1:${await tlsServer(authority, { clientCa })}`;
  const ask = ["health", "--address", address, "--tls-ca-file", temporaryFile(authority.cert)];
  const directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  const own = writeCertificate(directory, await makeCertificate(clientCa, "probe"));
  const shown = ["--tls-cert-file", own.certFile, "--tls-key-file", own.keyFile];

  expect(await run([...ask, ...shown])).toMatchObject({ code: 0, stdout: "SERVING\n" });
  expect(await run(ask)).toMatchObject({ code: 1 });
});

test("TLS files that can't be used are told by name, and exit with 64 or 78", async () => {
  const { cert } = await makeAuthority();
  const certFile = temporaryFile(cert);
  const garbage = temporaryFile("no PEM");

  expect(await run(["health", "--tls-cert-file", certFile])).toMatchObject({
    code: 64,
    stderr: expect.stringContaining("both --tls-cert-file and --tls-key-file"),
  });
  const absent = { PLUGIN_STATE_HEALTH_TLS_CA_FILE: "/nowhere/ca.crt" };
  expect(await run(["health"], absent)).toMatchObject({
    code: 78,
    stderr: expect.stringContaining(
      "PLUGIN_STATE_HEALTH_TLS_CA_FILE: can't read /nowhere/ca.crt (ENOENT)",
    ),
  });
  const broken = ["health", "--tls-cert-file", garbage, "--tls-key-file", garbage];
  expect(await run(broken)).toMatchObject({
    code: 78,
    stderr: expect.stringContaining("the --tls files can't be used"),
  });
});
