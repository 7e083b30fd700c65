import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { credentials } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { TlsFiles } from "../../src/config/config.ts";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import {
  type Certificate,
  makeAuthority,
  makeCertificate,
  writeCertificate,
} from "../support/certificates.ts";
import { failure, TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { configFor, type TestSidecar, testSidecar } from "../support/sidecar.ts";

const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

let database: TestDatabase;
let authority: Certificate;
let stranger: Certificate;
const directories: string[] = [];

beforeAll(async () => {
  database = await testDatabase();
  authority = await makeAuthority();
  stranger = await makeAuthority();
});

afterAll(async () => {
  for (const directory of directories) rmSync(directory, { recursive: true });
  await database[Symbol.asyncDispose]();
});

function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "plugin-state-"));
  directories.push(directory);
  return directory;
}

function serving(tls: TlsFiles): Promise<TestSidecar> {
  const [binding] = configFor(database.url, ["demo"]).bindings;
  return testSidecar(database, ["demo"], { bindings: [{ ...binding!, tls }] });
}

/** A client that trusts an authority, and may have a certificate. */
function clientOf(address: string, trusted: Certificate, own?: Certificate): TestClient {
  const key = own && Buffer.from(own.key);
  const cert = own && Buffer.from(own.cert);
  return new TestClient(address, credentials.createSsl(Buffer.from(trusted.cert), key, cert));
}

/** The certificate that a server shows, as its name and serial number. */
function shownBy(address: string): Promise<string> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect(
      { host: host!, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"] },
      () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      },
    );
    socket.on("error", reject);
  });
}

test("calls go over TLS, and a client in the clear gets nowhere", async () => {
  const files = writeCertificate(newDirectory(), await makeCertificate(authority, "one"));
  await using sidecar = await serving(files);
  using client = clientOf(sidecar.address, authority);

  await client.call("set", { ...name, valueJson: "1" });

  expect((await client.call("get", name)).entry?.valueJson).toBe("1");
  const inTheClear = await failure(sidecar.client.call("get", name, { deadlineMs: 2_000 }));
  expect(["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"]).toContain(inTheClear.codeName);
});

test("TLS 1.1 is refused", async () => {
  const files = writeCertificate(newDirectory(), await makeCertificate(authority, "one"));
  await using sidecar = await serving(files);
  const [host, port] = sidecar.address.split(":");

  const outcome = await new Promise<string>((resolve) => {
    const options = {
      rejectUnauthorized: false,
      maxVersion: "TLSv1.1",
      minVersion: "TLSv1",
    } as const;
    const ciphers = "DEFAULT@SECLEVEL=0";
    const socket = connect({ host: host!, port: Number(port), ciphers, ...options }, () => {
      resolve("connected");
      socket.destroy();
    });
    socket.on("error", () => resolve("refused"));
  });

  expect(outcome).toBe("refused");
});

test("with a client CA, a client needs a certificate of it", async () => {
  const directory = newDirectory();
  const files = writeCertificate(directory, await makeCertificate(authority, "server"));
  const clientCaFile = join(directory, "ca.crt");
  writeFileSync(clientCaFile, authority.cert);
  await using sidecar = await serving({ ...files, clientCaFile });
  using known = clientOf(sidecar.address, authority, await makeCertificate(authority, "worker"));
  using unknown = clientOf(sidecar.address, authority, await makeCertificate(stranger, "worker"));
  using without = clientOf(sidecar.address, authority);

  await known.call("get", name);

  for (const client of [unknown, without]) {
    const { codeName } = await failure(client.call("get", name, { deadlineMs: 5_000 }));
    expect(["UNAVAILABLE", "DEADLINE_EXCEEDED"]).toContain(codeName);
  }
});

test("a renewed certificate is shown to new connections, and open ones go on", async () => {
  const directory = newDirectory();
  const files = writeCertificate(directory, await makeCertificate(authority, "old"));
  await using sidecar = await serving(files);
  using client = clientOf(sidecar.address, authority);
  await client.call("get", name);

  writeCertificate(directory, await makeCertificate(authority, "new"));

  await vi.waitFor(async () => expect(await shownBy(sidecar.address)).toBe("new"), {
    timeout: 15_000,
  });
  await client.call("get", name);
});

test("a key that doesn't belong to its certificate leaves what was, until both are there", async () => {
  const directory = newDirectory();
  const files = writeCertificate(directory, await makeCertificate(authority, "old"));
  await using sidecar = await serving(files);
  const next = await makeCertificate(authority, "new");

  writeFileSync(files.certFile, next.cert);
  const other = newDirectory();
  const otherFiles = writeCertificate(other, await makeCertificate(authority, "x"));
  await using watching = await serving(otherFiles);
  writeCertificate(other, await makeCertificate(authority, "y"));
  await vi.waitFor(async () => expect(await shownBy(watching.address)).toBe("y"), {
    timeout: 15_000,
  });
  expect(await shownBy(sidecar.address)).toBe("old");

  writeFileSync(files.keyFile, next.key);
  await vi.waitFor(async () => expect(await shownBy(sidecar.address)).toBe("new"), {
    timeout: 15_000,
  });
});

test("files that make no TLS are refused at start, by name", async () => {
  const directory = newDirectory();
  const files = writeCertificate(directory, await makeCertificate(authority, "one"));
  const otherKey = writeCertificate(
    newDirectory(),
    await makeCertificate(authority, "two"),
  ).keyFile;
  const absent = join(directory, "absent");

  const garbage = join(directory, "garbage");
  writeFileSync(garbage, "not PEM");

  for (const [bad, problem] of [
    [{ ...files, keyFile: otherKey }, "the key doesn't belong to the certificate"],
    [{ ...files, certFile: absent }, `can't read ${absent} (ENOENT)`],
    [{ ...files, certFile: garbage }, "isn't PEM"],
  ] as const) {
    await expect(serving(bad)).rejects.toMatchObject({
      ...{ reason: "TLS_UNUSABLE", exitCode: 78 },
      message: expect.stringContaining(problem),
    });
  }
});
