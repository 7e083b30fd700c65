import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  type ChannelCredentials,
  Client,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../../src/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.ts";
import {
  ErrorReasonSchema,
  type FailedCheck,
  FailedChecksSchema,
} from "../../src/gen/pluginstate/v1/errors_pb.ts";
import {
  type PluginStateService,
  PluginStateService as service,
} from "../../src/gen/pluginstate/v1/plugin_state_service_pb.ts";

type Methods = typeof PluginStateService.method;

/** A plain grpc-js client of the service: `client.call("set", {...})`. */
export class TestClient implements Disposable {
  readonly #client: Client;

  constructor(address: string, channel: ChannelCredentials = credentials.createInsecure()) {
    this.#client = new Client(address, channel, {
      "grpc.max_receive_message_length": -1,
      // A connection of its own. Clients of one process share one otherwise, and a call that one of
      // them starts as the server says goodbye ends those of the others with INTERNAL on Node 20.11.
      "grpc.use_local_subchannel_pool": 1,
    });
  }

  /** Makes a call; a failed one rejects with a {@link CallError}. */
  call<K extends keyof Methods>(
    name: K,
    request: MessageInitShape<Methods[K]["input"]>,
    options: CallOptions = {},
  ): Promise<MessageShape<Methods[K]["output"]>> {
    const method: DescMethod = service.method[name];
    const bytes = toBinary(method.input, create(method.input as DescMessage, request));
    return this.send(name, Buffer.from(bytes), options);
  }

  /** Sends bytes as they are, well-formed or not. */
  send<K extends keyof Methods>(
    name: K,
    bytes: Buffer,
    options: CallOptions = {},
  ): Promise<MessageShape<Methods[K]["output"]>> {
    const method = service.method[name];
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        `/${service.typeName}/${method.name}`,
        (request: Buffer) => request,
        (reply: Buffer) => fromBinary(method.output as DescMessage, reply),
        bytes,
        metadataOf(options),
        { ...(options.deadlineMs && { deadline: Date.now() + options.deadlineMs }) },
        (error, reply) => {
          if (error) {
            reject(new CallError(error));
          } else {
            resolve(reply as MessageShape<Methods[K]["output"]>);
          }
        },
      );
      options.signal?.addEventListener("abort", () => call.cancel());
    });
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function metadataOf({ authorization }: CallOptions): Metadata {
  const metadata = new Metadata();
  if (authorization !== undefined) {
    metadata.set("authorization", authorization);
  }
  return metadata;
}

export interface CallOptions {
  readonly authorization?: string;
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/** A failed call with its details read. */
export class CallError extends Error {
  readonly code: status;
  readonly codeName: string;
  readonly reason: string | undefined;
  readonly domain: string | undefined;
  readonly metadata: Record<string, string> | undefined;
  readonly fields: string[];
  /** Of a Transact: each failed part, as `check 0 ENTRY_ABSENT` or `operation 2 REVISION_MISMATCH at 7`. */
  readonly failedChecks: string[] | undefined;
  readonly retryAfter: boolean;
  readonly detailBytes: number;

  constructor(error: ServiceError) {
    super(error.details, { cause: error });
    this.code = error.code;
    this.codeName = status[error.code];
    const bytes = detailsOf(error.metadata);
    const details = bytes === undefined ? [] : fromBinary(StatusSchema, bytes).details;
    const find = <S extends DescMessage>(schema: S) =>
      details.map((any) => anyUnpack(any, schema)).find((message) => message !== undefined);
    const info = find(ErrorInfoSchema);
    this.reason = info?.reason;
    this.domain = info?.domain;
    this.metadata = info?.metadata;
    this.fields = find(BadRequestSchema)?.fieldViolations.map(({ field }) => field) ?? [];
    this.failedChecks = find(FailedChecksSchema)?.failed.map(partText);
    this.retryAfter = find(RetryInfoSchema) !== undefined;
    this.detailBytes = bytes?.length ?? 0;
  }
}

function partText({ part, reason, currentRevision: current }: FailedCheck): string {
  const name = ErrorReasonSchema.value[reason]?.name.replace("ERROR_REASON_", "");
  return `${part.case} ${part.value} ${name}${current === undefined ? "" : ` at ${current}`}`;
}

function detailsOf(metadata: Metadata): Buffer | undefined {
  const [value] = metadata.get("grpc-status-details-bin");
  return Buffer.isBuffer(value) ? value : undefined;
}

/** The error of a call that must fail. */
export async function failure(call: Promise<unknown>): Promise<CallError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CallError) {
      return error;
    }
    throw error;
  }
  throw new Error("the call succeeded");
}
