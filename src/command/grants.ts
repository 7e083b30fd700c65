import { grantsOptions } from "../config/options.ts";
import { resolveOptions } from "../config/resolve.ts";
import { grantStatements, servingGrants } from "../postgres/grants.ts";
import { ExitCode, usageError } from "../start-error.ts";
import type { Invocation } from "./commands.ts";
import { print } from "./output.ts";

/** `plugin-state grants ROLE`: prints SQL. */
export async function grants({ flags, operands, environment }: Invocation): Promise<number> {
  const { values } = resolveOptions(grantsOptions, flags, environment);
  const role = operands[0] ?? "";
  if (role.trim() === "") throw usageError("ROLE must be the name of a database role");
  const statements = grantStatements(servingGrants(values.stateSchema), role);
  await print(`${statements.join("\n")}\n`);
  return ExitCode.ok;
}
