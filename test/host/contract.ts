import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { ScopeKind } from "../../src/gen/pluginstate/v1/entry_pb.ts";
import { TestClient } from "../support/client.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";

const rounds = Number(process.env["PLUGIN_STATE_FAULT_ROUNDS"] ?? 1);

/** Of every test of the host's contract: how often it has to hold, and how long it may take. */
export const everyRound = { repeats: Math.max(1, rounds) - 1, timeout: 60_000 };

/** For what a busy machine may take its time for. */
export const patiently = { timeout: 60_000 };

/** An entry to write and read. */
export const name = { scope: { kind: ScopeKind.INSTANCE }, key: "k" };

/** A database with the plugin `demo`, until the test ends. */
export async function demoDatabase(): Promise<TestDatabase> {
  const database = await testDatabase();
  onTestFinished(() => database[Symbol.asyncDispose]());
  await database.addPlugin("demo");
  return database;
}

/** A client until the test ends. */
export function dialState(address: string): TestClient {
  const client = new TestClient(address);
  onTestFinished(() => client[Symbol.dispose]());
  return client;
}

/** An empty directory until the test ends. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "host-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Waits until a write has been sent and waits for its lock; see `holdWrites`. */
export async function oneWriteWaits(database: TestDatabase): Promise<void> {
  const waiting = async () => {
    const rows = await database.query(
      "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    );
    return rows.length;
  };
  await expect.poll(waiting, patiently).toBe(1);
}
