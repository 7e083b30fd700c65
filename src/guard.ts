import type { ServerCredentials, ServerInterceptor } from "@grpc/grpc-js";
import { FileWatch } from "./access/file-watch.ts";
import { InvalidTls, TlsCredentials } from "./access/tls-credentials.ts";
import { InvalidTokens, Tokens } from "./access/tokens.ts";
import type { BindingConfig } from "./config/config.ts";
import type { Log } from "./log.ts";
import { authenticate } from "./rpc/authenticate.ts";
import { unauthenticated } from "./service/status.ts";
import { ExitCode, StartError } from "./start-error.ts";

/** What a guard is given beside its binding. */
export interface GuardOptions {
  readonly log: Log;
  /** Whether a method, by its path, needs no token. */
  readonly isOpen: (path: string) => boolean;
  /** Told of each call without a good token. */
  readonly onRefused: () => void;
}

/** Who gets through to one binding: its tokens and its TLS, kept up to date with their files. */
export class Guard {
  readonly #log: Log;
  readonly #tls: TlsCredentials | undefined;
  #tokens: Tokens | undefined;
  #watch: FileWatch | undefined;

  /** @throws {StartError} when a file can't be used. */
  constructor({ tokens, tls }: BindingConfig, options: GuardOptions) {
    this.#log = options.log;
    this.#tls = tls && orStartError("TLS_UNUSABLE", () => new TlsCredentials(tls));
    this.#tokens = tokens && orStartError("TOKEN_UNUSABLE", () => new Tokens(tokens));
    this.interceptors = this.#tokens === undefined ? [] : [this.#authenticator(options)];
  }

  /** For the listener; undefined: in the clear. */
  get credentials(): ServerCredentials | undefined {
    return this.#tls;
  }

  /** For the server: none where no token is demanded. */
  readonly interceptors: readonly ServerInterceptor[];

  /**
   * Takes the tokens of another configuration of the same binding, and reads the files again.
   *
   * @throws {StartError} when a file can't be used; what there was stays.
   */
  update({ tokens }: BindingConfig): void {
    const renewed = tokens && orStartError("TOKEN_UNUSABLE", () => new Tokens(tokens));
    if (this.#tls !== undefined) {
      const tls = this.#tls;
      orStartError("TLS_UNUSABLE", () => tls.reload());
    }
    this.#tokens = renewed;
    this.watchFiles();
  }

  /** From now on, until it is closed, files that change count. */
  watchFiles(): void {
    this.close();
    const tokenFile = this.#tokens?.file;
    const files = [...(this.#tls?.files ?? []), ...(tokenFile === undefined ? [] : [tokenFile])];
    if (files.length > 0) this.#watch = new FileWatch(files, () => this.#reload());
  }

  close(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }

  #authenticator({ isOpen, onRefused }: GuardOptions): ServerInterceptor {
    return authenticate({
      accepts: (authorization) => this.#tokens?.accepts(authorization) ?? false,
      refusal: () => {
        onRefused();
        return unauthenticated();
      },
      isOpen,
    });
  }

  /** A file changed. It may be half written: what there was stays good until it can be used. */
  #reload(): void {
    let isUsable = true;
    for (const source of [this.#tokens, this.#tls]) {
      try {
        source?.reload();
      } catch (error) {
        isUsable = false;
        this.#log.error(
          { err: error },
          "a changed file can't be used; what was there before serves",
        );
      }
    }
    if (isUsable) this.#log.info("token and TLS files read again");
  }
}

function orStartError<T>(reason: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof InvalidTokens || error instanceof InvalidTls)) throw error;
    const { cause } = error;
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    const denied = code === "EACCES" || code === "EPERM";
    throw new StartError(reason, error.message, {
      exitCode: denied ? ExitCode.noPermission : ExitCode.configuration,
      cause: error,
    });
  }
}
