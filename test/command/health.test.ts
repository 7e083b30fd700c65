import { mkdtempSync } from "node:fs";
import { type AddressInfo, createServer, type Server as NetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation, type ServingStatusMap } from "grpc-health-check";
import { expect, onTestFinished, test } from "vitest";
import { run } from "./run-command.ts";

/** A gRPC server with the reference implementation of health; returns its port. */
async function healthServer(statuses: ServingStatusMap, address = "127.0.0.1:0"): Promise<number> {
  const server = new Server();
  new HealthImplementation(statuses).addToServer(server);
  onTestFinished(() => server.forceShutdown());
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) =>
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
