import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type MetricsSource, serveMetrics } from "../../src/metrics/metrics-server.ts";
import type { ListenAddress } from "../../src/rpc/listen-address.ts";
import { anyPort } from "../support/metrics.ts";

const source: MetricsSource = {
  contentType: "text/plain; version=0.0.4; charset=utf-8",
  text: async () => "t 1\n",
  serves: () => true,
  onError: () => undefined,
};

async function served(given: Partial<MetricsSource> = {}, address: ListenAddress = anyPort) {
  const server = await serveMetrics({ ...source, ...given }, { address, loopbackOnly: true });
  onTestFinished(() => server.close());
  return server;
}

test("GET /metrics answers with the text format, whatever the query", async () => {
  const { address } = await served();
  for (const path of ["/metrics", "/metrics?x=1"]) {
    const response = await fetch(`http://${address}${path}`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe(source.contentType);
    expect(await response.text()).toBe("t 1\n");
  }
});

test("HEAD has the headers of GET and no body", async () => {
  const { address } = await served();
  const response = await fetch(`http://${address}/metrics`, { method: "HEAD" });
  expect(response.headers.get("content-length")).toBe("4");
  expect(await response.text()).toBe("");
});

test.each([
  ["GET", "/", 404],
  ["GET", "/metrics/", 404],
  ["GET", "//metrics", 404],
  ["POST", "/metrics", 405],
  ["DELETE", "/healthz", 405],
])("%s %s is answered with %d", async (method, path, code) => {
  const { address } = await served();
  const response = await fetch(`http://${address}${path}`, { method });
  expect(response.status).toBe(code);
});

test("/healthz says whether calls are served", async () => {
  let serves = true;
  const { address } = await served({ serves: () => serves });
  expect((await fetch(`http://${address}/healthz`)).status).toBe(200);
  serves = false;
  const response = await fetch(`http://${address}/healthz`);
  expect([response.status, await response.text()]).toEqual([503, "NOT_SERVING\n"]);
});

test("a scrape that fails is told and cuts its connection, and the next one is answered", async () => {
  const errors: unknown[] = [];
  let fails = true;
  const text = async () => {
    if (fails) throw new Error("no");
    return "t 1\n";
  };
  const { address } = await served({ text, onError: (error) => errors.push(error) });
  await expect(fetch(`http://${address}/metrics`)).rejects.toThrow();
  expect(errors).toHaveLength(1);
  fails = false;
  expect((await fetch(`http://${address}/metrics`)).status).toBe(200);
});

test("headers that are too large are refused, and a client that sends none is cut off", async () => {
  const { address } = await served();
  const large = await fetch(`http://${address}/metrics`, { headers: { x: "x".repeat(20_000) } });
  expect(large.status).toBe(431);
  const [host = "", port] = address.split(":");
  const silent = connect(Number(port), host);
  silent.write("GET /metrics HTTP/1.1\r\n");
  silent.resume();
  await once(silent, "close");
});

test("a unix socket is for its owner alone and is removed again", async () => {
  const directory = mkdtempSync(join(tmpdir(), "metrics-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "m.sock");
  const server = await served({}, { kind: "unix", path });
  expect(server.address).toBe(`unix://${path}`);
  expect(statSync(path).mode & 0o777).toBe(0o600);

  const asked = request({ socketPath: path, path: "/metrics" }).end();
  const [response] = await once(asked, "response");
  expect(response.statusCode).toBe(200);
  response.resume();

  await server.close();
  expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
});

test("closing cuts connections that are kept alive", async () => {
  const server = await served();
  await (await fetch(`http://${server.address}/metrics`)).text();
  await server.close();
  await expect(fetch(`http://${server.address}/metrics`)).rejects.toThrow();
});

test("a taken port and an address that others could reach are refused by name", async () => {
  const { address } = await served();
  const port = Number(address.split(":")[1]);
  const taken = serveMetrics(source, {
    address: { kind: "tcp", host: "127.0.0.1", port },
    loopbackOnly: true,
  });
  await expect(taken).rejects.toMatchObject({ reason: "address_in_use" });
  const reachable = serveMetrics(source, {
    address: { kind: "tcp", host: "0.0.0.0", port: 0 },
    loopbackOnly: true,
  });
  await expect(reachable).rejects.toMatchObject({ reason: "not_loopback" });
});
