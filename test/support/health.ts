import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../src/gen/health/v1/health_pb.ts";

/** What grpc.health.v1 says at an address: `SERVING`, `NOT_SERVING`. */
export async function healthOf(address: string, service = ""): Promise<string | undefined> {
  const client = new Client(address, credentials.createInsecure());
  try {
    const reply = await new Promise<Buffer>((resolve, reject) => {
      const request = toBinary(
        HealthCheckRequestSchema,
        create(HealthCheckRequestSchema, { service }),
      );
      client.makeUnaryRequest(
        `/${Health.typeName}/${Health.method.check.name}`,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => bytes,
        Buffer.from(request),
        (error, bytes) => (error ? reject(error) : resolve(bytes ?? Buffer.alloc(0))),
      );
    });
    const { status } = fromBinary(HealthCheckResponseSchema, reply);
    return Object.entries(ServingStatus).find(([, value]) => value === status)?.[0];
  } finally {
    client.close();
  }
}
