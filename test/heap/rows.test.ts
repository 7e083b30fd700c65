import { expect, test } from "vitest";
import { createLog } from "../../src/log.ts";
import { Pool } from "../../src/postgres/pool.ts";
import { testDatabase } from "../support/database.ts";
import { keptAfter } from "./young-heap.ts";

const rows = 500;
const rowBytes = 100;
const statement = {
  name: "rows",
  text: `select repeat('x', ${rowBytes}) as text from generate_series(1, ${rows})`,
};

test("what a statement answered is collected while it is young", async () => {
  await using database = await testDatabase();
  const pool = new Pool({
    connection: database.connection,
    connections: 1,
    timeoutMs: 10_000,
    log: createLog("silent"),
    onConnectionFailure: () => {},
    observer: { waits: () => ({ sent() {}, ended() {}, failed() {} }) },
  });
  const statements = 300;

  const kept = await keptAfter(statements, () => pool.run(statement, []));

  await pool.close();
  expect(kept).toBeLessThan((statements * rows * rowBytes) / 10);
});
