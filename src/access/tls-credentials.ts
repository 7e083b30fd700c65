import { readFileSync } from "node:fs";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { ServerCredentials } from "@grpc/grpc-js";
import type { TlsFiles } from "../config/config.ts";

/** Files that make no TLS; the message names the file, or says what OpenSSL did. */
export class InvalidTls extends Error {
  override readonly name = "InvalidTls";
}

/** Older ones are broken (RFC 8996). */
const minVersion = "TLSv1.2";

/** TLS from files that may be replaced while it serves: open connections go on, new ones get the new. */
export class TlsCredentials extends ServerCredentials {
  readonly #files: TlsFiles;

  /** @throws {InvalidTls} */
  constructor(files: TlsFiles) {
    const demandsClient = files.clientCaFile !== undefined;
    super(
      { requestCert: demandsClient, rejectUnauthorized: demandsClient, minVersion },
      read(files),
    );
    this.#files = files;
  }

  /** The files that are to be watched. */
  get files(): readonly string[] {
    return pathsOf(this.#files);
  }

  /**
   * Reads the files again.
   *
   * @throws {InvalidTls} and keeps what there was.
   */
  reload(): void {
    this.updateSecureContextOptions(read(this.#files));
  }

  _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function pathsOf({ certFile, keyFile, clientCaFile }: TlsFiles): string[] {
  return clientCaFile === undefined ? [certFile, keyFile] : [certFile, keyFile, clientCaFile];
}

/** What the files hold, after a try whether it can be used: a key may not belong to its certificate. */
function read(files: TlsFiles): SecureContextOptions {
  const { certFile, keyFile, clientCaFile } = files;
  const context: SecureContextOptions = {
    cert: readFile(certFile),
    key: readFile(keyFile),
    minVersion,
    ...(clientCaFile === undefined ? {} : { ca: readFile(clientCaFile) }),
  };
  try {
    createSecureContext(context);
  } catch (error) {
    throw new InvalidTls(`${pathsOf(files).join(", ")}: ${problemOf(error)}`, { cause: error });
  }
  return context;
}

/** What OpenSSL says, in words where it is what happens: a renewed certificate beside the old key. */
function problemOf(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error);
  if (/key values mismatch/.test(said)) return "the key doesn't belong to the certificate";
  if (/no start line/.test(said)) return `one of them isn't PEM, or holds something else (${said})`;
  return said;
}

function readFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    throw new InvalidTls(`can't read ${path} (${code})`, { cause: error });
  }
}
