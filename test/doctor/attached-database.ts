import type { DoctorLimits } from "../../src/postgres/doctor/check.ts";
import {
  defaultLimits,
  type ExamineOptions,
  examine,
  type Result,
} from "../../src/postgres/doctor/examine.ts";
import type { Remedy } from "../../src/postgres/doctor/remedy.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { servingRole } from "../support/global-setup.ts";

/** Those of the command, but with a number of free connections that a test can fall short of. */
export const limits: DoctorLimits = { ...defaultLimits, freeConnections: 50 };

/** A database that is migrated and attached to, with a plugin `demo`. */
export async function attachedDatabase(): Promise<TestDatabase> {
  const database = await testDatabase();
  await database.addPlugin("demo");
  return database;
}

/** What doctor finds when it connects straight to the server: as the serving role, or as the owner. */
export async function examined(
  database: TestDatabase,
  options: Partial<ExamineOptions> & { as?: "owner" } = {},
): Promise<Result[]> {
  const { as, ...others } = options;
  const url = new URL(database.ownerUrl);
  url.username = as === "owner" ? url.username : servingRole;
  const connection = { connectionString: url.href };
  const defaults = { stateSchema: "plugin_sidecar", isEmbedded: false, limits };
  return await examine(connection, { ...defaults, ...others });
}

/** Runs what a remedy says, as the owner. */
export async function follow(database: TestDatabase, remedy: Remedy = []): Promise<void> {
  for (const step of remedy) {
    if ("sql" in step) await database.query(step.sql);
    if ("run" in step && step.run.startsWith("plugin-state migrate")) {
      const attachAnew = step.run.includes(" --attach-anew");
      await migrate(database.connection, "plugin_sidecar", { attachAnew });
    }
  }
}
