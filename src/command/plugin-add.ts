import { readDatabaseCommand } from "../config/config.ts";
import { pluginAddOptions } from "../config/options.ts";
import { isPluginName, isUuid, pluginNameRule } from "../config/plugin-name.ts";
import { resolveOptions } from "../config/resolve.ts";
import type { Plugin } from "../postgres/plugins.ts";
import { ExitCode, StartError, usageError } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print } from "./output.ts";
import { withPlugins } from "./with-plugins.ts";

/** `plugin-state plugin add KEY`: prints the plugin's UUID, whether it is new or was there. */
export async function pluginAdd(invocation: Invocation): Promise<number> {
  const { flags, operands, environment } = invocation;
  const key = parseKey(operands[0] ?? "");
  const resolved = resolveOptions(pluginAddOptions, flags, environment);
  const { id, package: packageName = key, version } = resolved.values;
  const plugin = await withPlugins(readDatabaseCommand(resolved, environment), (plugins) =>
    plugins.add({ key, packageName, version, ...(id === undefined ? {} : { id }) }),
  );
  await print(`${requireId(plugin, key, id).id}\n`);
  return ExitCode.ok;
}

function parseKey(text: string): string {
  if (isUuid(text)) throw usageError(`KEY is a plugin's key, not its UUID: ${text}`);
  if (isPluginName(text)) return text;
  throw usageError(`KEY must be ${pluginNameRule}, not ${JSON.stringify(text)}`);
}

/** Doing it again is fine, unless it would give the key, or the UUID, another meaning. */
function requireId(plugin: Plugin | undefined, key: string, id: string | undefined): Plugin {
  if (plugin === undefined) throw taken(`the UUID ${id} belongs to another plugin than ${key}`);
  if (id !== undefined && plugin.id !== id.toLowerCase()) {
    throw taken(`${key} is registered already, with the UUID ${plugin.id}`);
  }
  return plugin;
}

function taken(message: string): StartError {
  return new StartError("PLUGIN_TAKEN", message, {
    exitCode: ExitCode.configuration,
    hint: "`plugin-state plugin list` shows what is registered.",
  });
}
