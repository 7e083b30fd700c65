import type {
  DescMessage,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Read } from "./wire-input.ts";
import type { Write } from "./wire-output.ts";

/** Reads a method's requests, if they are plain, and writes its replies. */
export interface MethodCodec<I extends DescMessage, O extends DescMessage> {
  readonly read: Read<MessageShape<I>>;
  readonly write: Write<MessageInitShape<O>>;
}

/** The codecs of a service's unary methods, by their names; scripts/protoc-gen-codec.js makes them. */
export type ServiceCodec<S extends DescService> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? MethodCodec<I, O>
    : never;
};
