import { Command, type CommanderError, Option } from "commander";
import type { OptionSpec, OptionTable } from "../config/option.ts";
import { redactSecrets } from "../config/redact.ts";
import type { Environment, GivenFlags } from "../config/resolve.ts";
import { ExitCode, exitCodes, type StartError, usageError } from "../start-error.ts";
import { type CommandSpec, commands, defaultCommand, type Invocation } from "./commands.ts";
import { epilogue, formatItem, optionText } from "./help.ts";
import { print, printError } from "./output.ts";
import { versionText } from "./version.ts";

/** Runs the command that a command line chose; its result is the exit code. */
export type RunCommand = (command: CommandSpec, invocation: Invocation) => Promise<number>;

/** A wrong command line, and the command it was meant for, if one was recognised. */
export class WrongCommandLine extends Error {
  readonly usage: StartError;
  readonly command: CommandSpec | undefined;

  constructor(usage: StartError, command: CommandSpec | undefined) {
    super(usage.message);
    this.usage = usage;
    this.command = command;
  }
}

/**
 * Parses a command line, runs its command and returns the exit code. Help and versions are printed
 * here. Throws {@link WrongCommandLine} for what no command understands.
 *
 * Commander reads flags and writes help; values and the environment are read by src/config:
 * commander's own `env()` takes an empty variable for a value, any text for a switch, and repeats
 * a wrong value in its errors, passwords too.
 */
export async function runCommandLine(
  argv: readonly string[],
  environment: Environment,
  run: RunCommand,
): Promise<number> {
  let code: number = ExitCode.ok;
  const program = makeProgram(async (command, flags, operands) => {
    code = await run(command, { flags, operands, environment });
  });
  try {
    await program.parseAsync(withDefaultCommand(argv), { from: "user" });
  } catch (error) {
    if (!(error instanceof Shown)) throw error;
  }
  return code;
}

/** Thrown where commander would exit with 0, having printed a help or the versions. */
class Shown extends Error {}

/** A command line that begins with a flag is one of the default command. */
function withDefaultCommand(argv: readonly string[]): string[] {
  const [first] = argv;
  const ofProgram = first !== undefined && ["-h", "--help", "-V", "--version"].includes(first);
  const named = first !== undefined && !first.startsWith("-");
  return named || ofProgram ? [...argv] : [defaultCommand.name, ...argv];
}

type Act = (command: CommandSpec, flags: GivenFlags, operands: readonly string[]) => Promise<void>;

function makeProgram(act: Act): Command {
  const program: Command = new Command("plugin-state")
    .description(
      "A sidecar that keeps a plugin's scoped JSON state in PostgreSQL and serves it over gRPC.",
    )
    .usage("[command] [options]")
    .version(versionText().trimEnd(), "-V, --version", "print the versions and exit")
    .helpOption("-h, --help", "print this help and exit")
    .helpCommand("help [command]", "print the help of a command")
    .enablePositionalOptions()
    .configureHelp({ formatItem })
    .configureOutput({ writeOut: print, writeErr: printError, outputError: () => {} })
    .addHelpText("after", () => programEpilogue())
    .exitOverride((error) => rethrow(error, program));
  for (const spec of commands) addCommand(program, spec, act);
  return program;
}

function addCommand(program: Command, spec: CommandSpec, act: Act): void {
  const command: Command = parentOf(program, spec)
    .command(spec.name.split(" ").at(-1) ?? spec.name)
    .summary(spec.summary)
    .description(spec.description)
    .addHelpText("after", () => epilogue(spec.examples, spec.exitCodes))
    .exitOverride((error) => rethrow(error, command, spec));
  if (spec.operand) command.argument(`<${spec.operand.name}>`, spec.operand.about);
  for (const option of Object.values(spec.options)) command.addOption(commanderOption(option));
  command.action(() => act(spec, givenFlags(command, spec.options), command.args));
}

/** The command `plugin` for `plugin add`, made when it is first asked for. */
function parentOf(program: Command, { name }: CommandSpec): Command {
  const [first = "", second] = name.split(" ");
  if (second === undefined) return program;
  const existing = program.commands.find((command) => command.name() === first);
  if (existing) return existing;
  const group: Command = program
    .command(first)
    .description("register and list plugins")
    .exitOverride((error) => rethrow(error, group));
  return group;
}

function commanderOption(spec: OptionSpec<unknown>): Option {
  const flags = spec.placeholder === undefined ? spec.flag : `${spec.flag} <${spec.placeholder}>`;
  const option = new Option(flags, optionText(spec));
  if (!spec.repeatable) return option;
  return option.argParser((text: string, before: string[] = []) => [...before, text]);
}

/** What stood on the command line itself: commander's own defaults are left out. */
function givenFlags(command: Command, table: OptionTable): GivenFlags {
  const flags: Record<string, readonly string[]> = {};
  for (const [name, spec] of Object.entries(table)) {
    const attribute = commanderOption(spec).attributeName();
    if (command.getOptionValueSource(attribute) !== "cli") continue;
    const value: unknown = command.getOptionValue(attribute);
    flags[name] = typeof value === "boolean" ? ["true"] : [value].flat().map(String);
  }
  return flags;
}

function programEpilogue(): string {
  return `${epilogue(defaultCommand.examples, exitCodes)}

Without a command, plugin-state runs \`serve\`. Flags can be given by the environment too; a flag
wins. \`plugin-state serve --help\` lists them.`;
}

/** Turns what commander would exit with into our errors. */
function rethrow(error: CommanderError, command: Command, spec?: CommandSpec): never {
  if (error.exitCode === 0) throw new Shown();
  throw new WrongCommandLine(usageOf(error, command), spec);
}

function usageOf(error: CommanderError, command: Command): StartError {
  const help = `\`${fullName(command)} --help\` shows what is allowed`;
  switch (error.code) {
    case "commander.help":
      return usageError(`${fullName(command)} needs one of its commands`, help);
    case "commander.excessArguments":
      return usageError(unexpectedOperand(command), help);
    case "commander.unknownCommand":
      return usageOfText(error, `The commands are ${namesOf(command.commands)}; ${help}`);
    default:
      return usageOfText(error, help);
  }
}

/** Commander's sentence, and below it what was perhaps meant, in parentheses. */
function usageOfText({ message }: CommanderError, help: string): StartError {
  const [problem = "", suggestion = ""] = message.replace(/^error: /, "").split("\n");
  const didYouMean = suggestion.replace(/^\((.*)\)$/, "$1 ");
  return usageError(redactSecrets(problem), `${didYouMean}${help}`);
}

function namesOf(list: readonly Command[]): string {
  return list.map((command) => command.name()).join(", ");
}

/** `plugin-state plugin add`, from the root down. */
function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

function unexpectedOperand(command: Command): string {
  const operand = command.args[command.registeredArguments.length] ?? "";
  const isCommand = commands.some(({ name }) => name.split(" ")[0] === operand);
  const advice = isCommand ? "; a command stands before its flags" : "";
  return redactSecrets(`unexpected argument '${operand}' for '${command.name()}'${advice}`);
}
