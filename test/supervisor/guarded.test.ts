import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import type { SidecarOptions } from "../../src/supervisor/supervisor.ts";
import { makeAuthority, makeCertificate, writeCertificate } from "../support/certificates.ts";
import { failure, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { real, supervise } from "./supervise.ts";

// Real sidecars that demand tokens, or serve TLS, under a supervisor.

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };
const first = "the-token-of-the-first";
const second = "the-token-of-the-second";

let database: TestDatabase;
let directory: string;

beforeEach(async () => {
  database = await testDatabase();
  await database.addPlugin("demo");
  await database.addPlugin("other");
  directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
});

afterEach(async () => {
  rmSync(directory, { recursive: true });
  await database[Symbol.asyncDispose]();
});

function clientOf(address: string, channel = credentials.createInsecure()): TestClient {
  const client = new TestClient(address, channel);
  onTestFinished(() => client[Symbol.dispose]());
  return client;
}

function bearer(token: string) {
  return { authorization: `Bearer ${token}` };
}

test("a token is demanded of the only binding's calls, not of health, and may be replaced", async () => {
  const { sidecar } = await supervise({ ...real(database), token: first });
  const [binding] = sidecar.bindings;
  await sidecar.health.until("SERVING");
  const client = clientOf(binding!.address);

  expect(await failure(client.call("get", name))).toMatchObject({ codeName: "UNAUTHENTICATED" });
  await client.call("set", { ...name, valueJson: "1" }, bearer(first));

  await sidecar.replace({ token: second });

  const next = clientOf(binding!.address);
  expect((await next.call("get", name, bearer(second))).entry?.valueJson).toBe("1");
  expect(await failure(next.call("get", name, bearer(first)))).toMatchObject({
    codeName: "UNAUTHENTICATED",
  });
});

test("a replacement whose options make no sense is refused, and the old process serves on", async () => {
  const bindings = [{ plugin: "demo" }, { plugin: "other" }];
  const { sidecar } = await supervise({ ...real(database), bindings });
  const { pid } = sidecar;

  await expect(sidecar.replace({ token: first })).rejects.toThrow(TypeError);

  expect(sidecar.pid).toBe(pid);
  await clientOf(sidecar.bindings[1]!.address).call("get", name);
});

test("the bindings of a configuration file get their tokens from the environment, on sockets that the host holds", async () => {
  const config = join(directory, "bindings.yaml");
  writeFileSync(
    config,
    `bindings:
  - { plugin: demo, listen: "fd:3", token_env: DEMO_TOKEN }
  - { plugin: other, listen: "fd:4", token_env: OTHER_TOKEN }
`,
  );
  const { bindings: _, ...process } = real(database);
  const { sidecar, told } = await supervise({
    ...process,
    config,
    sockets: ["127.0.0.1:0", "127.0.0.1:0"],
    env: { DEMO_TOKEN: first, OTHER_TOKEN: second },
  });
  await sidecar.health.until("SERVING");
  const [demo, other] = sidecar.bindings.map(({ address }) => clientOf(address));

  await demo!.call("set", { ...name, valueJson: "1" }, bearer(first));
  await other!.call("set", { ...name, valueJson: "2" }, bearer(second));

  expect(sidecar.bindings.map(({ plugin }) => plugin)).toEqual(["demo", "other"]);
  for (const [client, token] of [
    [demo, second],
    [other, first],
  ] as const) {
    expect(await failure(client!.call("get", name, bearer(token)))).toMatchObject({
      codeName: "UNAUTHENTICATED",
    });
  }
  expect(told.log.join()).not.toMatch(/the-token-of/);
});

test.each(["127.0.0.1:0", "a unix socket"])(
  "health is asked over TLS, with credentials of the host's, at %s",
  async (address) => {
    const authority = await makeAuthority();
    const files = writeCertificate(directory, await makeCertificate(authority, "sidecar"));
    const trusting = credentials.createSsl(Buffer.from(authority.cert));
    const listen = address === "127.0.0.1:0" ? address : `unix:${join(directory, "state.sock")}`;
    const { sidecar } = await supervise({
      ...real(database, "--tls-cert-file", files.certFile, "--tls-key-file", files.keyFile),
      bindings: [{ plugin: "demo", listen }],
      healthCredentials: trusting,
    } satisfies SidecarOptions);

    await sidecar.health.until("SERVING");

    expect(sidecar.health.bindings).toMatchObject([{ plugin: "demo", status: "SERVING" }]);
  },
);

test("health over TLS is UNKNOWN to a host that doesn't trust the certificate", async () => {
  const files = writeCertificate(directory, await makeCertificate(await makeAuthority(), "one"));
  const { cert } = await makeAuthority();
  const { sidecar } = await supervise({
    ...real(database, "--tls-cert-file", files.certFile, "--tls-key-file", files.keyFile),
    healthCredentials: credentials.createSsl(Buffer.from(cert)),
  });
  const channel = credentials.createSsl(Buffer.from(cert));

  // It serves, and whoever doesn't trust it can't tell.
  const { codeName } = await failure(
    clientOf(sidecar.bindings[0]!.address, channel).call("get", name),
  );

  expect(codeName).toBe("UNAVAILABLE");
  expect(sidecar.health.status).toBe("UNKNOWN");
});
