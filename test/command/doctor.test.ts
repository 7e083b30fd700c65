import { expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { servingRole } from "../support/global-setup.ts";
import { run } from "./run-command.ts";

test("doctor prints a line for each check, and exits with 0 when there are only warnings", async () => {
  await using database = await testDatabase();
  const { code, stdout, stderr } = await run(["doctor"], { DATABASE_URL: database.ownerUrl });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/^ok {7}connection {7}database test_\w+ answered in \d+ ms; role \S+$/m);
  expect(stdout).toMatch(
    /^warning {2}plugins {10}none is registered\n {26}Register one.*\n {28}plugin-state plugin add demo$/m,
  );
});

test("doctor --json prints an object for programs", async () => {
  await using database = await testDatabase();
  const args = ["doctor", "--json", "--role", servingRole];
  const { code, stdout } = await run(args, { DATABASE_URL: database.ownerUrl });
  expect(code).toBe(0);
  const { verdict, checks } = JSON.parse(stdout);
  expect(verdict).toBe("warning");
  expect(checks).toContainEqual({
    name: "grants",
    verdict: "ok",
    message: `role ${servingRole} may do all that serving needs`,
  });
  expect(checks.find(({ name }: { name: string }) => name === "plugins").remedy).toEqual([
    { say: "Register one, by any key:" },
    { run: "plugin-state plugin add demo" },
  ]);
});

test.each([
  [77, "grants", `revoke select on plugin_sidecar.plugins from ${servingRole}`],
  [78, "triggers", "drop trigger plugin_sidecar_log_insert on plugin_sidecar.plugin_state"],
  [
    69,
    "writable",
    "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$",
  ],
])("doctor exits with %d for a problem of %s", async (exitCode, check, damage) => {
  await using database = await testDatabase();
  await database.query(damage);
  const args = ["doctor", "--role", servingRole];
  const { code, stdout } = await run(args, { DATABASE_URL: database.ownerUrl });
  expect(code).toBe(exitCode);
  expect(stdout).toMatch(new RegExp(`^problem  ${check} `, "m"));
});

test("a database that can't be reached is what doctor found, and 69", async () => {
  const environment = { DATABASE_URL: "postgres://u:hunter2@127.0.0.1:1/x" };
  const { code, stdout } = await run(["doctor", "--json"], environment);
  expect(code).toBe(69);
  expect(JSON.parse(stdout)).toMatchObject({
    verdict: "problem",
    checks: [
      {
        name: "connection",
        message: expect.stringContaining("can't be reached: connect ECONNREFUSED"),
      },
    ],
  });
  expect(stdout).not.toContain("hunter2");
});

test("a database that there isn't is a problem of configuration", async () => {
  await using database = await testDatabase();
  const url = `${database.ownerUrl}`.replace(/test_\w+/, "nowhere");
  const { code, stdout } = await run(["doctor"], { DATABASE_URL: url });
  expect(code).toBe(78);
  expect(stdout).toMatch(/^problem {2}connection {2}the database refused: .*nowhere/);
});

test("a role that there isn't is a wrong flag", async () => {
  await using database = await testDatabase();
  const args = ["doctor", "--role", "nobody at all"];
  const { code, stderr } = await run(args, { DATABASE_URL: database.ownerUrl });
  expect(code).toBe(64);
  expect(stderr).toBe("plugin-state: there is no role nobody at all\n");
});

test("what doctor advises names the database as doctor was told it, but no password", async () => {
  await using database = await testDatabase("template0");
  const url = new URL(database.ownerUrl);
  url.password = "hunter2";
  const { stdout } = await run(["doctor", "--database-url", url.href]);
  url.password = "PASSWORD";
  expect(stdout).toMatch(/^ +plugin-state migrate --database-url /m);
  expect(stdout).toContain(url.href);
  expect(stdout).not.toContain("hunter2");
});
