import { Help } from "commander";
import type { OptionSpec } from "../config/option.ts";
import type { ExitCodeMeaning } from "../start-error.ts";
import type { CommandSpec } from "./commands.ts";

/** Up to this width terms and descriptions stand side by side. */
const maxColumnWidth = 22;
const indent = 6;

/** Puts long terms on lines of their own, so that their descriptions get the whole width. */
export function formatItem(
  this: Help,
  term: string,
  termWidth: number,
  description: string,
  helper: Help,
): string {
  if (termWidth <= maxColumnWidth) {
    return Help.prototype.formatItem.call(this, term, termWidth, description, helper);
  }
  const wrapped = helper.boxWrap(description, (helper.helpWidth ?? 80) - indent);
  const indented = wrapped.replace(/^/gm, " ".repeat(indent));
  return `  ${term}\n${indented}`;
}

/** What help says of an option: a sentence, then its default, bounds and variable. */
export function optionText(spec: OptionSpec<unknown>): string {
  const facts = [
    ...(spec.fallbackText === undefined ? [] : [`default: ${spec.fallbackText}`]),
    ...(spec.domain === undefined ? [] : [spec.domain]),
    ...(spec.env === null ? [] : [`env: ${spec.env}${spec.repeatable ? ", comma separated" : ""}`]),
  ];
  return facts.length === 0 ? spec.about : `${spec.about}\n(${facts.join("; ")})`;
}

/** What stands below the options of a command: examples and exit codes. */
export function epilogue(
  examples: CommandSpec["examples"],
  codes: readonly ExitCodeMeaning[],
): string {
  const exampleLines = examples.flatMap(([line, about]) => [`  # ${about}`, `  ${line}`]);
  const codeLines = codes.map(({ code, meaning }) => `  ${String(code).padEnd(5)}${meaning}`);
  const shown = exampleLines.length === 0 ? [] : ["", "Examples:", ...exampleLines];
  return [...shown, "", "Exit codes:", ...codeLines].join("\n");
}
