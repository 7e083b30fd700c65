import { expect, inject, test } from "vitest";
import { examine } from "../../src/postgres/doctor/examine.ts";
import { databaseUrl, testDatabase } from "../support/database.ts";

const isPooled = inject("isPooled");

async function poolerOf(url: string, namedStatements: boolean) {
  const connection = { connectionString: url, namedStatements };
  const options = { stateSchema: "plugin_sidecar", isEmbedded: false };
  return (await examine(connection, options)).find(({ name }) => name === "pooler");
}

test("a connection to the server itself is told from one through a pooler", async () => {
  await using database = await testDatabase();
  expect(await poolerOf(database.ownerUrl, true)).toMatchObject({
    verdict: "ok",
    message: expect.stringMatching(/^none/),
  });
});

test.runIf(isPooled)("named statements that a pooler loses are a problem", async () => {
  await using database = await testDatabase();
  expect(await poolerOf(database.url, true)).toMatchObject({
    verdict: "problem",
    kind: "configuration",
    message: expect.stringMatching(
      /shares server connections between transactions, and loses named statements/,
    ),
    remedy: [{ say: expect.stringContaining("--no-prepared-statements") }],
  });
});

test.runIf(isPooled)("a pooler that loses them is fine with statements without names", async () => {
  await using database = await testDatabase();
  expect(await poolerOf(database.url, false)).toMatchObject({
    verdict: "ok",
    message: expect.stringMatching(/statements are sent without names/),
  });
});

test.runIf(isPooled)(
  "a pooler with a single server connection is found to lose them too",
  async () => {
    const url = databaseUrl(inject("servingUrl"), "with_one_connection");
    expect(await poolerOf(url, true)).toMatchObject({
      verdict: "problem",
      message: expect.stringContaining("shares server connections"),
    });
  },
);

test.runIf(isPooled)("a pooler in session mode keeps named statements", async () => {
  const url = databaseUrl(inject("servingUrl"), "in_session_mode");
  expect(await poolerOf(url, true)).toMatchObject({
    verdict: "ok",
    message: expect.stringMatching(/a server connection of its own; named statements survive/),
  });
});
