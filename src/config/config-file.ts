import { dirname, resolve } from "node:path";
import { ExitCode, StartError, usageError } from "../start-error.ts";
import { capabilities, type Permissions } from "../state/permissions.ts";
import { parseAddress } from "./address.ts";
import { parseAllowedScope } from "./allowed.ts";
import { refuseOpen, refuseRepeated } from "./bindings.ts";
import type { BindingConfig, TokenSource } from "./config.ts";
import type { BindingEntry, ConfigFile } from "./config-file-schema.ts";
import type { Environment } from "./resolve.ts";
import { readTextFile } from "./text-file.ts";
import { isToken } from "./token.ts";

/** What a file's entries are read with. */
export interface FileContext {
  readonly environment: Environment;
  /** Listeners that other machines reach need no guard. */
  readonly insecure: boolean;
}

/**
 * Reads the bindings of a configuration file. Paths in it are relative to it.
 *
 * @throws {StartError} that names the file and the place in it.
 */
export async function readConfigFile(
  path: string,
  context: FileContext,
): Promise<readonly BindingConfig[]> {
  const file = await readEntries(path);
  try {
    refuseRepeated(file.bindings.map(({ listen }) => listen));
    return file.bindings.map((entry, index) =>
      bindingOf(entry, `bindings[${index}]`, dirname(resolve(path)), context),
    );
  } catch (error) {
    throw error instanceof StartError ? inFile(path, error.message, error.hint) : error;
  }
}

async function readEntries(path: string): Promise<ConfigFile> {
  const text = readTextFile(path, "--config");
  // Loaded when needed: most sidecars have no such file.
  const { parse, YAMLParseError } = await import("yaml");
  const { parseConfigFile } = await import("./config-file-schema.ts");
  let document: unknown;
  try {
    document = parse(text, { prettyErrors: true, uniqueKeys: true });
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    const { line, col } = error.linePos?.[0] ?? { line: 1, col: 1 };
    const [problem] = error.message.split(/ at line |\n/);
    throw inFile(path, `line ${line}, column ${col}: ${problem}`);
  }
  const { file, problems } = parseConfigFile(document);
  if (file === undefined) throw inFile(path, problems.join("; "));
  return file;
}

function bindingOf(
  entry: BindingEntry,
  name: string,
  directory: string,
  { environment, insecure }: FileContext,
): BindingConfig {
  const at = (file: string) => resolve(directory, file);
  const { tls } = entry;
  const binding: BindingConfig = {
    plugin: entry.plugin,
    listen: parseAddress(`${name}.listen`, entry.listen),
    tokens: tokensOf(entry, name, at, environment),
    tls: tls && {
      certFile: at(tls.cert_file),
      keyFile: at(tls.key_file),
      clientCaFile: tls.client_ca_file && at(tls.client_ca_file),
    },
    permissions: permissionsOf(entry),
    bounds: boundsOf(entry),
  };
  if (!insecure) refuseOpen(binding, `${name}.listen`, "--insecure");
  return binding;
}

function tokensOf(
  { token_file: file, token_env: variable }: BindingEntry,
  name: string,
  at: (file: string) => string,
  environment: Environment,
): TokenSource | undefined {
  if (file !== undefined) return { kind: "file", path: at(file) };
  if (variable === undefined) return undefined;
  const token = environment[variable];
  if (token === undefined || !isToken(token)) {
    throw usageError(`${name}.token_env: the environment variable ${variable} holds no good token`);
  }
  return { kind: "text", token, name: variable };
}

function permissionsOf(entry: BindingEntry): Permissions | undefined {
  if (entry.capabilities === undefined && entry.scopes === undefined) return undefined;
  const scopes = entry.scopes?.map(parseAllowedScope).filter((scope) => scope !== undefined);
  return { capabilities: entry.capabilities ?? capabilities, scopes };
}

function boundsOf(entry: BindingEntry): BindingConfig["bounds"] {
  const { max_value_bytes: maxValueBytes, quota_entries, quota_bytes } = entry;
  return {
    ...(maxValueBytes !== undefined && { maxValueBytes }),
    ...(quota_entries !== undefined && { quotaEntries: quota_entries || undefined }),
    ...(quota_bytes !== undefined && { quotaBytes: quota_bytes || undefined }),
  };
}

function inFile(path: string, problem: string, hint?: string): StartError {
  return new StartError("CONFIG_FILE_INVALID", `${path}: ${problem}`, {
    exitCode: ExitCode.configuration,
    ...(hint === undefined ? {} : { hint }),
  });
}
