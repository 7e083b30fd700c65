import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { generate } from "selfsigned";

/** A certificate and its key, as PEM text. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const organization = [{ name: "commonName", value: "plugin-state tests" }];

/** Makes a certificate authority. */
export async function makeAuthority(): Promise<Certificate> {
  const { cert, private: key } = await generate(organization, {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, digitalSignature: true, critical: true },
    ],
  });
  return { cert, key };
}

/** Makes a certificate of an authority, for localhost and 127.0.0.1. */
export async function makeCertificate(authority: Certificate, name: string): Promise<Certificate> {
  const { cert, private: key } = await generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    ca: authority,
    extensions: [
      { name: "basicConstraints", cA: false },
      {
        name: "subjectAltName",
        altNames: [
          { type: 2, value: "localhost" },
          { type: 7, ip: "127.0.0.1" },
        ],
      },
    ],
  });
  return { cert, key };
}

/** Writes both into files of a directory. */
export function writeCertificate(directory: string, { cert, key }: Certificate) {
  const certFile = join(directory, "tls.crt");
  const keyFile = join(directory, "tls.key");
  writeFileSync(certFile, cert);
  writeFileSync(keyFile, key);
  return { certFile, keyFile };
}
