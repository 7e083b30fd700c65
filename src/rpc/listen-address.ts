import { BlockList, isIPv4, isIPv6 } from "node:net";
import { resolve } from "node:path";

/** Where a server may be reached. Port 0 lets the system choose; a unix path is absolute. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "fd"; readonly fd: number };

/** A text that is no listen address; the message says what is. */
export class InvalidListenAddress extends Error {
  override readonly name = "InvalidListenAddress";
  constructor(text: string, why: string) {
    super(
      `${JSON.stringify(text)} is not an address to listen on: ${why}. ` +
        `Write "127.0.0.1:50051", "[::1]:50051", "localhost:0", "unix:/path/to.sock" or "fd:3".`,
    );
  }
}

const hostAndPort = /^(?:\[(?<ipv6>[^\]]*)\]|(?<name>[^:[\]]*)):(?<port>\d{1,5})$/;
const hostName = /^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/;

/**
 * Parses what a flag or the environment says. Every form is one that gRPC clients dial, apart from
 * `fd:` (a listening socket inherited from the parent). A relative unix path is taken from the
 * working directory. Throws {@link InvalidListenAddress}.
 */
export function parseListenAddress(text: string): ListenAddress {
  if (text.startsWith("unix:")) return parseUnix(text);
  if (text.startsWith("fd:")) return parseDescriptor(text);
  return parseTcp(text);
}

/** What a client dials: `127.0.0.1:41234`, `[::1]:41234`, `unix:///run/worker.sock`. */
export function formatAddress(address: ListenAddress): string {
  switch (address.kind) {
    case "tcp":
      return isIPv6(address.host)
        ? `[${address.host}]:${address.port}`
        : `${address.host}:${address.port}`;
    case "unix":
      return `unix://${address.path}`;
    case "fd":
      return `fd:${address.fd}`;
  }
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/**
 * Whether only this machine can reach the address. A name other than `localhost` counts as remote,
 * and so does an inherited descriptor, whose address isn't known yet: `listen`'s `loopbackOnly`
 * judges both by what was really bound.
 */
export function isLoopback(address: ListenAddress): boolean {
  switch (address.kind) {
    case "tcp":
      return address.host.toLowerCase() === "localhost" || isLoopbackIp(address.host);
    case "unix":
      return true;
    case "fd":
      return false;
  }
}

function isLoopbackIp(host: string): boolean {
  if (isIPv4(host)) return loopback.check(host, "ipv4");
  // The list's IPv4 rules also catch ::ffff:127.0.0.1.
  return isIPv6(host) && loopback.check(host, "ipv6");
}

function parseTcp(text: string): ListenAddress {
  const { ipv6, name, port = "" } = hostAndPort.exec(text)?.groups ?? {};
  const host = ipv6 ?? name;
  if (host === undefined) throw new InvalidListenAddress(text, "it has no host and port");
  if (ipv6 !== undefined && !isIPv6(ipv6)) {
    throw new InvalidListenAddress(text, "the brackets hold no IPv6 address");
  }
  if (ipv6 === undefined && !hostName.test(host)) {
    throw new InvalidListenAddress(text, host === "" ? "it has no host" : "its host is no name");
  }
  if (Number(port) > 65_535) throw new InvalidListenAddress(text, "its port is above 65535");
  return { kind: "tcp", host, port: Number(port) };
}

function parseUnix(text: string): ListenAddress {
  const rest = text.slice("unix:".length);
  if (rest.startsWith("//") && !rest.startsWith("///")) {
    throw new InvalidListenAddress(text, 'after "unix://" the path must be absolute');
  }
  const path = rest.startsWith("//") ? rest.slice(2) : rest;
  if (path === "" || path.endsWith("/")) throw new InvalidListenAddress(text, "it names no file");
  if (path.includes("\0")) throw new InvalidListenAddress(text, "its path holds a NUL");
  return { kind: "unix", path: resolve(path) };
}

function parseDescriptor(text: string): ListenAddress {
  const fd = /^fd:(\d{1,6})$/.exec(text)?.[1];
  if (fd === undefined || Number(fd) < 3) {
    throw new InvalidListenAddress(text, "a descriptor is a number from 3 up");
  }
  return { kind: "fd", fd: Number(fd) };
}
