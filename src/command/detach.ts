import { readDatabaseCommand } from "../config/config.ts";
import { detachOptions } from "../config/options.ts";
import { resolveOptions } from "../config/resolve.ts";
import { databaseStartError } from "../database.ts";
import {
  type DetachOptions,
  detach as detachFrom,
  type Losses,
  lossesOf,
} from "../postgres/attach/detach.ts";
import { ownSchema } from "../postgres/own-schema.ts";
import { ExitCode, usageError } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print, printError } from "./output.ts";
import { withDatabase } from "./with-database.ts";

/** `plugin-state detach`: says what would be lost, and with --yes takes the sidecar out of the host's database. */
export async function detach({ flags, environment }: Invocation): Promise<number> {
  const resolved = resolveOptions(detachOptions, flags, environment);
  const read = readDatabaseCommand(resolved, environment);
  const { stateSchema } = read.config;
  if (stateSchema === ownSchema) {
    throw usageError(
      "the state is in the sidecar's own schema: there is no host to detach from",
      "Name the host's schema: --state-schema public.",
    );
  }
  return await withDatabase(read, async ({ database, signal }) => {
    const onProgress = (message: string) => void printError(`${message}\n`);
    const options: DetachOptions = { stateSchema, signal, onProgress };
    try {
      const losses = await lossesOf(database.migrationConnection, options);
      await printError(describe(losses));
      if (!resolved.values.yes) {
        throw usageError("nothing was changed", "Run it again with --yes to detach.");
      }
      await detachFrom(database.migrationConnection, options);
    } catch (error) {
      throw databaseStartError(error);
    }
    await print(`detached from schema ${stateSchema}\n`);
    return ExitCode.ok;
  });
}

function describe({ sidecars, plugins, expiring, expired, requests }: Losses): string {
  const lines = [
    `the revisions of ${plugins} plugins, and how far they were counted`,
    `the ends of ${expiring} entries with a time to live: they stay for ever`,
    `${expired} expired entries, which nobody sees any more`,
    `${requests} answers kept for repeated requests`,
  ];
  const running =
    sidecars === 0
      ? ""
      : `${sidecars} connections of sidecars are open to this database: they will stop serving.\n`;
  const rights = "Rights on the host's tables that roles were given to serve stay theirs.\n";
  return `Detaching loses:\n${lines.map((line) => `- ${line}\n`).join("")}${rights}${running}`;
}
