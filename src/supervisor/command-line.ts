import { fileURLToPath } from "node:url";
import type { ReplaceableOptions, SidecarOptions } from "./options.ts";

/** What a program needs of its surroundings, on any system; nothing that configures a sidecar. */
const inheritedVariables = [
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "SHELL",
  "TMPDIR",
  "TEMP",
  "TMP",
  "TZ",
  "LANG",
  "LC_ALL",
  "LC_CTYPE",
  "XDG_STATE_HOME",
  "XDG_CACHE_HOME",
  "XDG_CONFIG_HOME",
  "XDG_RUNTIME_DIR",
  "LD_LIBRARY_PATH",
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "SYSTEMROOT",
  "WINDIR",
  "LOCALAPPDATA",
  "APPDATA",
  "USERPROFILE",
  "PATHEXT",
  "COMSPEC",
] as const;

/** This package's own `plugin-state serve`, in the same Node.js. */
const ownCommand: readonly [string, ...string[]] = [
  process.execPath,
  fileURLToPath(new URL("../main.js", import.meta.url)),
  "serve",
];

/** The program and its arguments; `listens` are the bindings' addresses or descriptors. */
export function commandLine(
  options: SidecarOptions,
  listens: readonly string[],
): [string, ...string[]] {
  const [program, ...first] = options.command ?? ownCommand;
  const { bindings = [], config, dataDir, args = [], exitWithParent = true } = options;
  return [
    program,
    ...first,
    ...bindings.flatMap(({ plugin }, index) => [
      ...["--plugin", plugin],
      ...["--listen", listens[index] ?? ""],
    ]),
    ...(config === undefined ? [] : ["--config", config]),
    ...(dataDir === undefined ? [] : ["--data-dir", dataDir]),
    ...(exitWithParent ? ["--exit-with-parent"] : []),
    ...args,
  ];
}

/** The process's variables. What is secret stands here and nowhere else. */
export function environment(options: ReplaceableOptions): Record<string, string> {
  const variables: Record<string, string | undefined> = {
    ...Object.fromEntries(inheritedVariables.map((name) => [name, process.env[name]])),
    ...options.env,
  };
  if (options.databaseUrl !== undefined) variables["DATABASE_URL"] = options.databaseUrl;
  if (options.token !== undefined) variables["PLUGIN_STATE_TOKEN"] = options.token;
  const set: Record<string, string> = {};
  for (const [name, value] of Object.entries(variables)) {
    if (value !== undefined) set[name] = value;
  }
  return set;
}

/** Variables whose values are kept out of the log: by their names, and the password of any URL. */
const secretName = /TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY/i;

/** Texts that must not be seen in the log. */
export function secretsOf(variables: Readonly<Record<string, string>>): string[] {
  return Object.entries(variables).flatMap(([name, value]) => [
    ...(secretName.test(name) && !/_FILE$|_ENV$/.test(name) ? [value] : []),
    ...passwordsOf(value),
  ]);
}

function passwordsOf(value: string): string[] {
  const password = /^\w[\w+.-]*:\/\/[^\s:@/]*:(\S*)@/.exec(value)?.[1];
  if (password === undefined || password === "") return [];
  return [password, decoded(password)];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
