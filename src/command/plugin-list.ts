import { readDatabaseCommand } from "../config/config.ts";
import { pluginListOptions } from "../config/options.ts";
import { resolveOptions } from "../config/resolve.ts";
import type { ListedPlugin } from "../postgres/plugins.ts";
import { ExitCode } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print } from "./output.ts";
import { withPlugins } from "./with-plugins.ts";

/** `plugin-state plugin list`: a table for people, or with `--json` an array for programs. */
export async function pluginList({ flags, environment }: Invocation): Promise<number> {
  const resolved = resolveOptions(pluginListOptions, flags, environment);
  const read = readDatabaseCommand(resolved, environment);
  const plugins = await withPlugins(read, (registry) => registry.list());
  await print(resolved.values.json ? json(plugins) : table(plugins));
  return ExitCode.ok;
}

/** Revisions are strings, as in the JSON form of the API: they may not fit a JSON reader's numbers. */
function json(plugins: readonly ListedPlugin[]): string {
  const rows = plugins.map(({ key, id, version, status, revision }) => ({
    key,
    id,
    version,
    status,
    revision: String(revision),
  }));
  return `${JSON.stringify(rows, undefined, 2)}\n`;
}

function table(plugins: readonly ListedPlugin[]): string {
  const rows = [
    ["KEY", "ID", "VERSION", "STATUS", "REVISION"],
    ...plugins.map(({ key, id, version, status, revision }) => [
      key,
      id,
      version,
      status,
      String(revision),
    ]),
  ];
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, column) => Math.max(cell.length, widest[column] ?? 0)),
    [],
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return `${rows.map(line).join("\n")}\n`;
}
