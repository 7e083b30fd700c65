import {
  Server,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";

/** The method that stands for all that don't exist. */
export const pathOfUnknown = "/plugin_state/unknown";

/** A server that can be asked for its methods. */
export class MethodsServer extends Server {
  readonly #paths = new Set<string>();

  override addService(service: ServiceDefinition, implementation: UntypedServiceImplementation) {
    super.addService(service, implementation);
    for (const { path } of Object.values(service)) this.#paths.add(path);
  }

  /** By its path: `/package.Service/Method`. */
  hasMethod(path: string): boolean {
    return this.#paths.has(path);
  }
}

/** Adds {@link pathOfUnknown}. What answers it is {@link refuseUnknownMethods}. */
export function addUnknownMethod(server: Server): void {
  const nothing = (): Buffer => Buffer.alloc(0);
  const unimplemented = () => {
    throw new Error("it was refused before");
  };
  server.register(pathOfUnknown, unimplemented, nothing, nothing, "unary");
}

/**
 * Answers calls of methods that don't exist. grpc-js by itself shows such calls to no interceptor, and
 * repeats the path in its answer, which may be long and hold anything.
 */
export function refuseUnknownMethods(): ServerInterceptor {
  return ({ path }, call) => {
    if (path !== pathOfUnknown) {
      // The declared type is the wrapper class, but all that is ever called is this interface.
      return call as ServerInterceptingCall;
    }
    const details = "The server does not implement the method";
    return new ServerInterceptingCall(call, {
      start: () => call.sendStatus({ code: status.UNIMPLEMENTED, details, metadata: null }),
    });
  };
}
