import { z } from "zod";
import { capabilities } from "../state/permissions.ts";
import { allowedScopeRule, parseAllowedScope } from "./allowed.ts";
import { maxMaxValueBytes, maxQuota, minMaxValueBytes } from "./limits.ts";
import { isPluginName, pluginNameRule } from "./plugin-name.ts";

const path = z.string().min(1);
const quota = z.int().min(0).max(maxQuota);

const binding = z
  .strictObject({
    plugin: z
      .string()
      .refine(isPluginName, `must be ${pluginNameRule}`)
      .meta({ description: "The plugin, by key or UUID." }),
    listen: z
      .string()
      .min(1)
      .meta({ description: "HOST:PORT (port 0 takes a free one), unix:/PATH or fd:N." }),
    token_file: path
      .optional()
      .meta({ description: "A file with the tokens that are good, one on each line." }),
    token_env: z
      .string()
      .regex(/^[A-Za-z_]\w*$/, "must be the name of an environment variable")
      .optional()
      .meta({ description: "The environment variable that holds the token." }),
    tls: z
      .strictObject({
        cert_file: path.meta({ description: "The certificate, and those up to its CA; PEM." }),
        key_file: path.meta({ description: "Its key; PEM." }),
        client_ca_file: path
          .optional()
          .meta({ description: "Clients must have a certificate of a CA in it; PEM." }),
      })
      .optional()
      .meta({ description: "Serve TLS." }),
    capabilities: z
      .array(z.enum(capabilities))
      .min(1)
      .optional()
      .meta({ description: "What is allowed; both if absent." }),
    scopes: z
      .array(
        z
          .string()
          .refine((text) => parseAllowedScope(text) !== undefined, `must be ${allowedScopeRule}`),
      )
      .min(1)
      .optional()
      .meta({ description: "The scopes that are allowed, as KIND or KIND:ID; all if absent." }),
    max_value_bytes: z
      .int()
      .min(minMaxValueBytes)
      .max(maxMaxValueBytes)
      .optional()
      .meta({ description: "The largest value, in bytes of JSON text." }),
    quota_entries: quota
      .optional()
      .meta({ description: "How many entries the plugin may have; 0: any number." }),
    quota_bytes: quota
      .optional()
      .meta({ description: "How large its entries may be together, in bytes; 0: any size." }),
  })
  .refine((entry) => entry.token_file === undefined || entry.token_env === undefined, {
    message: "token_file and token_env exclude each other",
  });

const configFile = z.strictObject(
  {
    bindings: z
      .array(binding)
      .min(1, "needs a binding at least")
      .meta({ description: "The listeners, each for one plugin." }),
  },
  {
    error: ({ code }) =>
      code === "invalid_type" ? "isn't an object with `bindings`, or is empty" : undefined,
  },
);

/** One listener, as a configuration file has it. */
export type BindingEntry = z.infer<typeof binding>;

/** A configuration file that fits the schema. */
export type ConfigFile = z.infer<typeof configFile>;

/** Checks a document; without a file, the problems say what is wrong, and where. */
export function parseConfigFile(document: unknown): {
  readonly file?: ConfigFile;
  readonly problems: readonly string[];
} {
  const { data, error } = configFile.safeParse(document);
  if (error === undefined) return { file: data, problems: [] };
  const problems = error.issues.map(({ path, message }) => {
    const place = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`));
    const name = place.join("").replace(/^\./, "");
    return name === "" ? message : `${name}: ${message}`;
  });
  return { problems };
}

/** The schema as editors and other programs understand it. */
export function configFileJsonSchema(): unknown {
  return z.toJSONSchema(configFile);
}
