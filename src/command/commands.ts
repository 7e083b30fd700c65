import type { OptionTable } from "../config/option.ts";
import {
  detachOptions,
  doctorOptions,
  grantsOptions,
  healthOptions,
  migrateOptions,
  pluginAddOptions,
  pluginListOptions,
  serveOptions,
} from "../config/options.ts";
import type { Environment, GivenFlags } from "../config/resolve.ts";
import { ExitCode, type ExitCodeMeaning, exitCodes } from "../start-error.ts";

/** What a command is called with. */
export interface Invocation {
  readonly flags: GivenFlags;
  readonly operands: readonly string[];
  readonly environment: Environment;
}

/** One command: its help and docs as data, and its code, loaded only when it runs. */
export interface CommandSpec {
  /** The words that call it: `plugin add`. */
  readonly name: string;
  /** One line in the list of commands. */
  readonly summary: string;
  /** What its help begins with. */
  readonly description: string;
  readonly operand?: { readonly name: string; readonly about: string };
  readonly options: OptionTable;
  /** Lines for a shell, each with what it does. */
  readonly examples: readonly (readonly [line: string, about: string])[];
  readonly exitCodes: readonly ExitCodeMeaning[];
  /** Does the work and returns the exit code; throws a StartError for what a person can mend. */
  run(invocation: Invocation): Promise<number>;
}

/** Of commands that open the database, do one thing and leave. */
const databaseExitCodes: readonly ExitCodeMeaning[] = [
  { code: ExitCode.ok, meaning: "done" },
  ...exitCodes.filter(({ code }) => code >= ExitCode.usage && code < ExitCode.interrupted),
].filter(({ code }) => code !== ExitCode.cannotBind);

/** Runs when no command is given. */
export const defaultCommand: CommandSpec = {
  name: "serve",
  summary: "serve a plugin's state over gRPC (the default command)",
  description: `Serves pluginstate.v1.PluginStateService over gRPC for one plugin, or several, and keeps their state in PostgreSQL. Without a database it runs its own in --data-dir, with a plugin "demo" in it.

When it serves, exactly one line is written on stdout; a plugin that isn't registered yet has pluginId null:
{"event":"ready","protocol":1,"pid":1,"version":"…","bindings":[{"plugin":"…","pluginId":"…","address":"…"}],"health":"grpc.health.v1"}
If it can't start, instead:
{"event":"failed","reason":"…","message":"…","retryable":false}
Logs go to stderr. SIGTERM or SIGINT drains and stops; a second one stops at once.`,
  options: serveOptions,
  examples: [
    ["plugin-state", "an embedded database, the plugin demo on 127.0.0.1:50051"],
    [
      "DATABASE_URL=postgres://… plugin-state --plugin acme.notes --listen 127.0.0.1:0",
      "a given database, any free port (the ready line says which)",
    ],
    [
      "plugin-state --plugin a --listen unix:/run/ps/a.sock --plugin b --listen unix:/run/ps/b.sock",
      "two plugins in one process",
    ],
  ],
  exitCodes,
  run: async (invocation) => (await import("./serve.ts")).serve(invocation),
};

/** Every command, in the order of the help. */
export const commands: readonly CommandSpec[] = [
  defaultCommand,
  {
    name: "migrate",
    summary: "bring the database's schema up to date",
    description: `Brings the schema of the database up to what this release needs, attaches to the tables of the state, and prints the migrations it ran; on stderr what takes its time. Safe to run again, and by many at once. With a URL for migrations it uses that, and then grants the role of the database URL what serving needs. \`serve\` does the same at start, unless told --no-migrate.`,
    options: migrateOptions,
    examples: [
      ["DATABASE_URL=postgres://owner@db/app plugin-state migrate", "as a role that may create"],
      ["plugin-state migrate --state-schema public", "attach to the tables that Paperclip made"],
      ["plugin-state migrate --attach-anew", "count all entries again, as doctor advises"],
    ],
    exitCodes: databaseExitCodes,
    run: async (invocation) => (await import("./migrate.ts")).migrate(invocation),
  },
  {
    name: "detach",
    summary: "take all that is the sidecar's out of a host's database",
    description: `Removes the sidecar's columns, triggers and indexes from the host's plugin_state, and the schema plugin_sidecar. Entries stay as they are, but for expired ones, which are removed. Without --yes it changes nothing, says what would be lost, and exits with 64. Can be cut off and run again. Stop the sidecars first: those that run stop serving.`,
    options: detachOptions,
    examples: [
      ["plugin-state detach --state-schema public", "says what would be lost"],
      ["plugin-state detach --state-schema public --yes", "does it"],
    ],
    exitCodes: databaseExitCodes,
    run: async (invocation) => (await import("./detach.ts")).detach(invocation),
  },
  {
    name: "plugin add",
    summary: "register a plugin, so that it can be served",
    description: `Registers a plugin and prints its UUID. Doing it again changes nothing. Where Paperclip is the host, it registers its plugins itself.`,
    operand: { name: "KEY", about: "the plugin's key, such as acme.notes" },
    options: pluginAddOptions,
    examples: [["plugin-state plugin add acme.notes", "prints the UUID of acme.notes"]],
    exitCodes: databaseExitCodes,
    run: async (invocation) => (await import("./plugin-add.ts")).pluginAdd(invocation),
  },
  {
    name: "plugin list",
    summary: "list the registered plugins",
    description: "Lists the registered plugins by key, with their UUIDs and versions.",
    options: pluginListOptions,
    examples: [["plugin-state plugin list --json", "an array for programs"]],
    exitCodes: databaseExitCodes,
    run: async (invocation) => (await import("./plugin-list.ts")).pluginList(invocation),
  },
  {
    name: "doctor",
    summary: "check the database and say what to do",
    description: `Looks at the database as a sidecar would and changes nothing: a line for each check with ok, warning or problem, and below it what to do. Commands and SQL stand further in, to be run as they are, in order; then ask again. Works on any database, also before the first migration. Warnings alone exit with 0.`,
    options: doctorOptions,
    examples: [
      ["DATABASE_URL=postgres://app@db/app plugin-state doctor", "as the role that serves"],
      [
        "plugin-state doctor --state-schema public",
        "before attaching to a host's tables, and after",
      ],
      ["plugin-state doctor --role app --json", "the rights of another role, for programs"],
    ],
    exitCodes: databaseExitCodes.map(({ code, meaning }) =>
      code === ExitCode.ok ? { code, meaning: "no problem" } : { code, meaning },
    ),
    run: async (invocation) => (await import("./doctor.ts")).doctor(invocation),
  },
  {
    name: "grants",
    summary: "print the SQL that lets a database role serve",
    description: `Prints the SQL that grants a database role what serving needs, and no more. Run it as the role that migrated, after every migration. Needs no database. With --migration-database-url or --migration-database-url-file, \`serve\` and \`migrate\` grant it themselves.`,
    operand: { name: "ROLE", about: "the role that the sidecar connects as" },
    options: grantsOptions,
    examples: [["plugin-state grants app | psql postgres://owner@db/app", "lets app serve"]],
    exitCodes: [
      { code: ExitCode.ok, meaning: "always, but for" },
      { code: ExitCode.usage, meaning: "wrong flag or value" },
    ],
    run: async (invocation) => (await import("./grants.ts")).grants(invocation),
  },
  {
    name: "health",
    summary: "ask a running sidecar whether it serves",
    description: `Calls grpc.health.v1.Health/Check and prints the answer. Made for a container's HEALTHCHECK: it needs no shell and no other program. It needs no token, and asks in the clear unless one of the --tls options is given: where the listeners serve TLS, give those, or ask the address of --health-listen.`,
    options: healthOptions,
    examples: [
      ["plugin-state health", "prints SERVING or NOT_SERVING, for the process"],
      ["plugin-state health --service plugin/acme.notes", "the same for one plugin"],
      [
        "plugin-state health --address unix:/run/ps/a.sock --timeout-ms 500",
        "a unix socket, and no more than half a second",
      ],
      [
        "plugin-state health --tls-ca-file ca.crt --tls-server-name notes.example",
        "a listener with TLS",
      ],
    ],
    exitCodes: [
      { code: ExitCode.ok, meaning: "SERVING" },
      { code: ExitCode.unhealthy, meaning: "anything else, or no answer in time" },
      { code: ExitCode.usage, meaning: "wrong flag, command or value" },
      { code: ExitCode.noPermission, meaning: "a file of --tls-… may not be read" },
      { code: ExitCode.configuration, meaning: "a file of --tls-… can't be used" },
    ],
    run: async (invocation) => (await import("./health.ts")).health(invocation),
  },
  {
    name: "version",
    summary: "print the versions of plugin-state and of Node.js",
    description: "Prints the versions of plugin-state and of Node.js, and the platform.",
    options: {},
    examples: [],
    exitCodes: [{ code: ExitCode.ok, meaning: "always" }],
    run: async () => (await import("./version.ts")).printVersion(),
  },
];
