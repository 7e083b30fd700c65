import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type handleUnaryCall, type Server, status } from "@grpc/grpc-js";
import { describe, expect, onTestFinished, test } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { bytesMethod } from "../../src/rpc/codec.ts";
import { HealthService } from "../../src/rpc/health.ts";
import { formatAddress, isLoopback, parseListenAddress } from "../../src/rpc/listen-address.ts";
import { drain, listen } from "../../src/rpc/listener.ts";
import { dial, newServer, read, serverStream, start, unary } from "./peers.ts";

const { check, watch } = Health.method;
const addHealth = (server: Server) => new HealthService([]).addTo(server);

describe("an address", () => {
  test.each([
    ["127.0.0.1:50051", { kind: "tcp", host: "127.0.0.1", port: 50_051 }],
    ["localhost:0", { kind: "tcp", host: "localhost", port: 0 }],
    ["[::1]:0", { kind: "tcp", host: "::1", port: 0 }],
    ["state.internal:443", { kind: "tcp", host: "state.internal", port: 443 }],
    ["unix:/run/a.sock", { kind: "unix", path: "/run/a.sock" }],
    ["unix:///run/a.sock", { kind: "unix", path: "/run/a.sock" }],
    ["unix:a.sock", { kind: "unix", path: join(process.cwd(), "a.sock") }],
    ["fd:3", { kind: "fd", fd: 3 }],
  ])("%s is understood", (text, address) => {
    expect(parseListenAddress(text)).toEqual(address);
  });

  test.each([
    "",
    ":50051",
    "50051",
    "127.0.0.1",
    "127.0.0.1:65536",
    "::1:50051",
    "[127.0.0.1]:1",
    "http://127.0.0.1:1",
    "a_b:1",
    "unix:",
    "unix:/run/",
    "unix://run/a.sock",
    "unix:/a\0b",
    "fd:1",
    "fd:x",
  ])("%j is refused with a sentence that says what is allowed", (text) => {
    expect(() => parseListenAddress(text)).toThrow(/is not an address to listen on: .*Write "127/);
  });

  test.each(["127.0.0.1:1", "[::1]:1", "unix:///run/a.sock", "fd:3"])(
    "%s is written as it is read",
    (text) => expect(formatAddress(parseListenAddress(text))).toBe(text),
  );

  test.each([
    ["127.0.0.1:1", true],
    ["127.255.0.1:1", true],
    ["LocalHost:1", true],
    ["[::1]:1", true],
    ["[::ffff:127.0.0.1]:1", true],
    ["unix:/run/a.sock", true],
    ["0.0.0.0:1", false],
    ["[::]:1", false],
    ["10.0.0.1:1", false],
    ["localhost.example.com:1", false],
    ["fd:3", false],
  ])("%s: only this machine reaches it: %s", (text, expected) => {
    expect(isLoopback(parseListenAddress(text))).toBe(expected);
  });
});

describe("listening on TCP", () => {
  test.each(["127.0.0.1:0", "localhost:0"])("%s names the port the system chose", async (text) => {
    const { address } = await start(addHealth, text);
    expect(address).toMatch(/^(127\.0\.0\.1|\[::1\]):[1-9]\d*$/);
    await expectServing(address);
  });

  test("reports a taken port as address_in_use", async () => {
    const { address } = await start(addHealth);
    await expect(start(addHealth, address)).rejects.toMatchObject({
      reason: "address_in_use",
      message: `Cannot listen on ${address}: another process is listening there.`,
    });
  });

  test.each(["192.0.2.1:0", "no-such-host.invalid:0"])(
    "reports %s, which isn't this machine's, as address_unavailable",
    async (text) => {
      const reason = "address_unavailable";
      await expect(start(addHealth, text)).rejects.toMatchObject({ reason });
    },
  );

  test("refuses what other machines reach, if told to", async () => {
    const address = parseListenAddress("0.0.0.0:0");
    const listening = listen(newServer(), address, { loopbackOnly: true });
    await expect(listening).rejects.toMatchObject({ reason: "not_loopback" });
  });

  test("survives a peer that doesn't speak HTTP/2", async () => {
    const { address } = await start(addHealth);
    const socket = connect(Number(address.split(":")[1]), "127.0.0.1");
    socket.on("error", () => {});
    socket.write("GET / HTTP/1.1\r\n\r\n".repeat(100));
    socket.resume();
    await new Promise((resolve) => socket.once("close", resolve));
    await expectServing(address);
  });
});

describe("listening on a unix socket", () => {
  test("makes it 0600, in a directory it makes 0700, and leaves nothing else there", async () => {
    const directory = join(scratch(), "run", "sidecar");
    const { address } = await start(addHealth, `unix:${directory}/a.sock`);
    expect(address).toBe(`unix://${directory}/a.sock`);
    await expectServing(address);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(lstatSync(join(directory, "a.sock")).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(["a.sock"]);
  });

  test("touches nothing outside its directory", async () => {
    const directory = join(scratch(), "run");
    mkdirSync(directory);
    const outside = statSync(join(directory, ".."), { bigint: true }).mtimeNs;
    await start(addHealth, `unix:${directory}/a.sock`);
    expect(statSync(join(directory, ".."), { bigint: true }).mtimeNs).toBe(outside);
  });

  test("replaces a socket file that nobody answers", async () => {
    const path = join(scratch(), "a.sock");
    await leaveDeadSocket(path);
    const { address } = await start(addHealth, `unix:${path}`);
    await expectServing(address);
  });

  test("leaves a socket alone that somebody answers", async () => {
    const path = join(scratch(), "a.sock");
    const { address } = await start(addHealth, `unix:${path}`);
    const before = lstatSync(path);
    await expect(start(addHealth, `unix:${path}`)).rejects.toMatchObject({
      reason: "address_in_use",
    });
    expect(lstatSync(path).ino).toBe(before.ino);
    expect(readdirSync(join(path, ".."))).toEqual(["a.sock"]);
    await expectServing(address);
  });

  test("leaves a file alone that isn't a socket", async () => {
    const path = join(scratch(), "a.sock");
    writeFileSync(path, "precious");
    await expect(start(addHealth, `unix:${path}`)).rejects.toMatchObject({
      reason: "not_a_socket",
    });
    expect(statSync(path).size).toBe(8);
  });

  test("gives the path to one of many that start at once on a dead socket", async () => {
    for (let round = 0; round < 10; round++) {
      const path = join(scratch(), "a.sock");
      await leaveDeadSocket(path);
      const starts = Array.from({ length: 8 }, () => start(addHealth, `unix:${path}`));
      const outcomes = await Promise.allSettled(starts);
      const lost = outcomes.filter((outcome) => outcome.status === "rejected");
      expect(lost.map(({ reason }) => reason.reason)).toEqual(Array(7).fill("address_in_use"));
      await expectServing(`unix://${path}`);
      expect(readdirSync(join(path, ".."))).toEqual(["a.sock"]);
    }
  });

  test("refuses a path that the system would cut off", async () => {
    const path = join(scratch(), "x".repeat(100));
    await expect(start(addHealth, `unix:${path}`)).rejects.toMatchObject({
      reason: "path_too_long",
    });
  });

  test("removes its file when closed, but not the one that took its place", async () => {
    const path = join(scratch(), "a.sock");
    const first = await start(addHealth, `unix:${path}`);
    await first.listener.close();
    expect(existsSync(path)).toBe(false);
    const second = await start(addHealth, `unix:${path}`);
    unlinkSync(path);
    const third = await start(addHealth, `unix:${path}`);
    await second.listener.close();
    await second.listener.close();
    await expectServing(third.address);
  });
});

describe.skipIf(!existsSync("dist/rpc/listener.js"))("listening on an inherited descriptor", () => {
  test("serves on the socket that the parent bound", async () => {
    const parent = createServer().listen(0, "127.0.0.1");
    await once(parent, "listening");
    const child = spawn(process.execPath, ["--input-type=module", "-e", servesOnDescriptor3], {
      stdio: ["ignore", "pipe", "inherit", descriptorOf(parent)],
    });
    onTestFinished(() => void child.kill());
    const [address] = await once(child.stdout!, "data");
    const { port } = parent.address() as AddressInfo;
    parent.close();
    expect(String(address)).toBe(`127.0.0.1:${port}`);
    await expectServing(String(address));
  });

  test("reports a descriptor that is no socket as bad_descriptor", async () => {
    const reason = "bad_descriptor";
    await expect(start(addHealth, "fd:999")).rejects.toMatchObject({ reason });
  });
});

describe("draining", () => {
  test("lets calls in flight finish and sends idle clients away", async () => {
    const { server, address, arrived, finish } = await startSlow();
    const idle = connectHttp2(`http://${address}`);
    await once(idle, "remoteSettings");
    const call = unary(dial(address), check, {});
    await arrived;
    const drained = drain(server, 20_000);
    const isDone = Promise.race([drained, new Promise((resolve) => setImmediate(resolve, "no"))]);
    expect(await isDone).toBe("no");
    await once(idle, "goaway");
    finish();
    await expect(call).resolves.toMatchObject({ status: 0 });
    expect(await drained).toBe("drained");
  });

  test("takes no new connection", async () => {
    const { server, address } = await start(addHealth);
    expect(await drain(server, 20_000)).toBe("drained");
    const code = status.UNAVAILABLE;
    await expect(unary(dial(address), check, {})).rejects.toMatchObject({ code });
    await expect(listen(server, parseListenAddress("127.0.0.1:0"))).rejects.toMatchObject({
      reason: "shutting_down",
    });
  });

  test("cuts what is still open after its grace", async () => {
    const { server, address } = await start(addHealth);
    const { next, status: end } = read(serverStream(dial(address), watch, {}));
    await next();
    expect(await drain(server, 50)).toBe("forced");
    expect(await end).not.toBe(status.OK);
  });

  test("happens once, however often it's asked for", async () => {
    const { server } = await start(addHealth);
    const first = drain(server, 20_000);
    expect(drain(server, 0)).toBe(first);
    expect(await first).toBe("drained");
  });

  test("covers every address of a server, and removes the socket files", async () => {
    const path = join(scratch(), "a.sock");
    const { server, address } = await start(addHealth);
    await listen(server, parseListenAddress(`unix:${path}`));
    const clients = [address, `unix://${path}`].map(dial);
    for (const client of clients) await unary(client, check, {});
    expect(await drain(server, 20_000)).toBe("drained");
    expect(existsSync(path)).toBe(false);
  });
});

async function expectServing(address: string): Promise<void> {
  await expect(unary(dial(address), check, {})).resolves.toBeDefined();
}

/** A server whose Check answers when it's told to. */
async function startSlow() {
  let arrive = () => {};
  let finish = () => {};
  const arrived = new Promise<void>((resolve) => (arrive = resolve));
  const slowCheck: handleUnaryCall<Buffer, Buffer> = (_call, done) => {
    finish = () => done(null, Buffer.alloc(0));
    arrive();
  };
  const add = (server: Server) =>
    server.addService({ check: bytesMethod(check) }, { check: slowCheck });
  return { ...(await start(add)), arrived, finish: () => finish() };
}

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "listen-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A socket file such as a killed process leaves behind. */
async function leaveDeadSocket(path: string): Promise<void> {
  const server = createServer().listen(`${path}.live`);
  await once(server, "listening");
  linkSync(`${path}.live`, path);
  server.close();
  await once(server, "close");
}

function descriptorOf(server: ReturnType<typeof createServer>): number {
  // Node has no public way to a listening socket's descriptor.
  return (server as unknown as { _handle: { fd: number } })._handle.fd;
}

const servesOnDescriptor3 = `
  import { HealthService } from "./dist/rpc/health.js";
  import { listen } from "./dist/rpc/listener.js";
  import { createGrpcServer } from "./dist/rpc/server-options.js";
  const server = createGrpcServer({ maxReceiveBytes: 1e6, maxSendBytes: 1e6, maxConcurrentStreams: 9 });
  new HealthService([]).addTo(server);
  const listener = await listen(server, { kind: "fd", fd: 3 }, { loopbackOnly: true });
  process.stdout.write(listener.address);
`;
