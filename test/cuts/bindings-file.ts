import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeAuthority, makeCertificate, writeCertificate } from "../support/certificates.ts";

/** How a binding is reached; each has a plugin of that name. */
export const transports = ["plain", "tls", "unix"] as const;
export type Transport = (typeof transports)[number];

/** The plugin whose binding no reload changes. */
export const bystander = "bystander";

/** What a reload can change. */
export interface Configuration {
  readonly present: readonly Transport[];
  readonly token: string;
  readonly maxValueBytes: number;
}

/** A configuration file in a directory of its own. */
export class BindingsFile {
  readonly path: string;
  readonly bystanderAddress: string;
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, "bindings.json");
    this.bystanderAddress = `unix:${join(directory, "bystander.sock")}`;
  }

  static async in(directory: string): Promise<BindingsFile> {
    writeCertificate(directory, await makeCertificate(await makeAuthority(), "server"));
    return new BindingsFile(directory);
  }

  write({ present, token, maxValueBytes }: Configuration): void {
    const listen = {
      plain: "127.0.0.1:0",
      tls: "127.0.0.1:0",
      unix: `unix:${join(this.#directory, "unix.sock")}`,
    };
    const tls = { cert_file: "tls.crt", key_file: "tls.key" };
    const bindings = present.map((transport) => ({
      plugin: transport,
      listen: listen[transport],
      token_file: "token",
      max_value_bytes: maxValueBytes,
      ...(transport === "tls" && { tls }),
    }));
    writeFileSync(join(this.#directory, "token"), token);
    const other = { plugin: bystander, listen: this.bystanderAddress };
    writeFileSync(this.path, JSON.stringify({ bindings: [other, ...bindings] }));
  }
}
