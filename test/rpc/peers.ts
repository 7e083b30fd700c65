import type { ServerHttp2Stream } from "node:http2";
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  type MethodDefinition,
  type Server,
} from "@grpc/grpc-js";
import { onTestFinished } from "vitest";
import { Health } from "../../src/gen/health/v1/health_pb.ts";
import { bytesMethod, decode, encode } from "../../src/rpc/codec.ts";
import { parseListenAddress } from "../../src/rpc/listen-address.ts";
import { drain, type Listener, listen } from "../../src/rpc/listener.ts";
import { createGrpcServer } from "../../src/rpc/server-options.ts";

interface Started {
  readonly server: Server;
  readonly listener: Listener;
  readonly address: string;
  /** Its end of each call so far. */
  readonly served: ServerHttp2Stream[];
}

/** Starts a server on a real socket, with `add` for its services, until the test ends. */
export async function start(
  add: (server: Server) => void,
  address = "127.0.0.1:0",
): Promise<Started> {
  const served: ServerHttp2Stream[] = [];
  const server = newServer(served);
  add(server);
  const listener = await listen(server, parseListenAddress(address));
  return { server, listener, address: listener.address, served };
}

/** A server that is drained when the test ends; its end of each call is added to `served`. */
export function newServer(served: ServerHttp2Stream[] = []): Server {
  const server = createGrpcServer({
    maxReceiveBytes: 4 << 20,
    maxSendBytes: 4 << 20,
    maxConcurrentStreams: 2_000,
    maxLongCalls: 2_000,
    interceptors: [
      (_method, call) => {
        served.push((call as unknown as { stream: ServerHttp2Stream }).stream);
        return call as never;
      },
    ],
  });
  onTestFinished(async () => void (await drain(server, 0)));
  return server;
}

/** A grpc-js client with its own connection, until the test ends. */
export function dial(address: string): Client {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  onTestFinished(() => client.close());
  return client;
}

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;
export const asTheyAre = (bytes: Buffer) => bytes;

/** A unary method of bytes, for services that only tests have. */
export function methodAt(path: string): MethodDefinition<Buffer, Buffer> {
  return { ...bytesMethod(Health.method.check), path };
}

/** Calls a unary method; rejects with grpc-js's ServiceError. Bytes are sent as they are. */
export function unary<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: Method<I, O>,
  request: MessageInitShape<I> | Buffer,
): Promise<MessageShape<O>> {
  const bytes = Buffer.isBuffer(request) ? request : encode(method.input, request);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(pathOf(method), asTheyAre, asTheyAre, bytes, (error, reply) =>
      error ? reject(error) : resolve(decode(method.output, reply as Buffer)),
    );
  });
}

/** Opens a server stream. */
export function serverStream<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: Method<I, O>,
  request: MessageInitShape<I>,
): ClientReadableStream<MessageShape<O>> {
  return client.makeServerStreamRequest(
    pathOf(method),
    asTheyAre,
    (bytes) => decode(method.output, bytes),
    encode(method.input, request),
  );
}

/** Opens a stream in both directions. Bytes are sent as they are. */
export function bidiStream<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: Method<I, O>,
): ClientDuplexStream<MessageInitShape<I> | Buffer, MessageShape<O>> {
  return client.makeBidiStreamRequest(
    pathOf(method),
    (request) => (Buffer.isBuffer(request) ? request : encode(method.input, request)),
    (bytes) => decode(method.output, bytes),
  );
}

/** Collects what a stream brings: `next` waits for one message, `status` for the end. */
export function read<T>(stream: ClientReadableStream<T> | ClientDuplexStream<never, T>): {
  next: () => Promise<T>;
  seen: T[];
  status: Promise<number>;
} {
  const seen: T[] = [];
  let taken = 0;
  let wake = () => {};
  stream.on("data", (message: T) => {
    seen.push(message);
    wake();
  });
  stream.on("error", () => {});
  const status = new Promise<number>((resolve) =>
    stream.on("status", (end) => {
      resolve(end.code);
      wake();
    }),
  );
  const next = async (): Promise<T> => {
    while (seen.length <= taken) await new Promise<void>((resolve) => (wake = resolve));
    return seen[taken++] as T;
  };
  return { next, seen, status };
}
