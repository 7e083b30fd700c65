import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { bindSocket } from "../rpc/bound-socket.ts";
import type { ListenAddress } from "../rpc/listen-address.ts";
import { listenError } from "../rpc/listen-error.ts";

/** What the server answers with. */
export interface MetricsSource {
  readonly contentType: string;
  /** All metrics, in Prometheus' text format. */
  readonly text: () => Promise<string>;
  /** Whether calls would be served now. */
  readonly serves: () => boolean;
  readonly onError: (error: unknown) => void;
}

/** How the server may be reached. */
export interface MetricsServerOptions {
  readonly address: ListenAddress;
  readonly loopbackOnly: boolean;
}

/** A running server. */
export interface MetricsServer {
  /** Where, with the port the system chose. */
  readonly address: string;
  /** Stops, and cuts what is open. Idempotent. */
  close(): Promise<void>;
}

/** A scraper or two, and a person. */
const maxConnections = 16;
const maxHeaderBytes = 8 * 1024;
const maxHeaders = 64;
/** A request has no body and comes from near; nobody needs longer to send one. */
const requestMs = 5_000;
/** Longer than the usual scrape interval, so that a scraper keeps its connection. */
const keepAliveMs = 90_000;

/**
 * Serves `GET /metrics`, and `GET /healthz`: 200 while calls are served, else 503.
 *
 * @throws {ListenError} when the address can't be bound.
 */
export async function serveMetrics(
  source: MetricsSource,
  { address, loopbackOnly }: MetricsServerOptions,
): Promise<MetricsServer> {
  const server = createServer(
    {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: requestMs,
      requestTimeout: requestMs,
      keepAliveTimeout: keepAliveMs,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      answer(source, request, response).catch((error) => {
        source.onError(error);
        response.destroy();
      });
    },
  );
  server.maxConnections = maxConnections;
  server.maxHeadersCount = maxHeaders;
  server.on("error", () => undefined);
  try {
    const bound = await bindSocket(server, address, loopbackOnly);
    server.on("error", source.onError);
    let closing: Promise<void> | undefined;
    return {
      address: bound.address,
      close: () => {
        closing ??= close(server, bound.removeFile);
        return closing;
      },
    };
  } catch (error) {
    await close(server, () => {});
    throw listenError(address, error);
  }
}

async function close(server: Server, removeFile: () => void): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  removeFile();
  await closed;
}

async function answer(
  source: MetricsSource,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const respond = await responseTo(source, request);
  response.writeHead(respond.code, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(respond.body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...respond.headers,
  });
  response.end(request.method === "HEAD" ? undefined : respond.body);
}

interface Answer {
  readonly code: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

async function responseTo(source: MetricsSource, request: IncomingMessage): Promise<Answer> {
  const [path] = (request.url ?? "").split("?", 1);
  if (path !== "/metrics" && path !== "/healthz") {
    return { code: 404, body: "Not found: there are /metrics and /healthz.\n" };
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { code: 405, body: "Only GET and HEAD.\n", headers: { allow: "GET, HEAD" } };
  }
  if (path === "/healthz") {
    return source.serves()
      ? { code: 200, body: "SERVING\n" }
      : { code: 503, body: "NOT_SERVING\n" };
  }
  return {
    code: 200,
    body: await source.text(),
    headers: { "content-type": source.contentType },
  };
}
