import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ExamineOptions, Result } from "../../src/postgres/doctor/examine.ts";
import type { TestDatabase } from "../support/database.ts";
import { attachedDatabase, examined, follow, limits } from "./attached-database.ts";

let database: TestDatabase;

beforeEach(async () => {
  database = await attachedDatabase();
});

afterEach(async () => {
  await database[Symbol.asyncDispose]();
});

async function finding(
  name: string,
  options: Partial<ExamineOptions> & { as?: "owner" } = {},
): Promise<Result | undefined> {
  return (await examined(database, options)).find((one) => one.name === name);
}

type Names = [kind: string, id: string | null, namespace: string, key: string];

/** Adds rows as a host would that checks nothing. */
async function add(...names: Names[]): Promise<void> {
  for (const name of names) {
    await database.query(
      `insert into plugin_sidecar.plugin_state
         (plugin_id, scope_kind, scope_id, namespace, state_key, value_json)
       select id, $1, $2, $3, $4, to_jsonb($4::text) from plugin_sidecar.plugins`,
      name,
    );
  }
}

async function allNames(): Promise<Names[]> {
  const rows = await database.query<{ names: Names }>(
    `select array[scope_kind, scope_id, namespace, state_key] as names
       from plugin_sidecar.plugin_state order by 1`,
  );
  return rows.map(({ names }) => names);
}

const long = "ü".repeat(600);

describe("a row that no call can name is told, and what mends it gives it a name:", () => {
  test.for<[said: string, before: Names, after: Names]>([
    ["with scope id ''", ["issue", "", "n", "k"], ["issue", "(none)", "n", "k"]],
    [
      "of another kind without a scope id",
      ["company", null, "n", "k"],
      ["company", "(none)", "n", "k"],
    ],
    ["of kind instance with a scope id", ["instance", "I", "n", "k"], ["instance", null, "n", "k"]],
    ["of kind instance with a scope id", ["instance", "", "n", "k"], ["instance", null, "n", "k"]],
    ["with namespace ''", ["run", "R", "", "k"], ["run", "R", "default", "k"]],
    ["with key ''", ["goal", "G", "n", ""], ["goal", "G", "n", "(empty)"]],
    ["of an unknown scope kind", [" Agent", "A", "n", "k"], ["agent", "A", "n", "k"]],
    ["of an unknown scope kind", ["user", "U", "n", "k"], ["instance", null, "n", "user/U/k"]],
    ["of an unknown scope kind", ["", null, "", ""], ["instance", null, "default", "//"]],
    [
      "with a scope id of more than 256 bytes",
      ["issue", long.slice(0, 129), "n", "k"],
      ["issue", expect.stringMatching(/^ü{55}~[0-9a-f]{32}$/), "n", "k"],
    ],
    [
      "with a namespace of more than 256 bytes",
      ["issue", "I", long.slice(0, 129), "k"],
      ["issue", "I", expect.stringMatching(/^ü{55}~[0-9a-f]{32}$/), "k"],
    ],
    [
      "with a key of more than 1024 bytes",
      ["issue", "I", "n", long],
      ["issue", "I", "n", expect.stringMatching(/^ü{247}~[0-9a-f]{32}$/)],
    ],
  ])("%s %o", async ([said, before, after]) => {
    await add(before, ["issue", "other", "n", "k"]);
    const found = await finding("names");
    expect(found).toMatchObject({
      verdict: "warning",
      message: expect.stringMatching(
        new RegExp(`1 ${said.replaceAll("'", "'")} \\(id [0-9a-f-]{36}\\)`),
      ),
    });

    await follow(database, found?.remedy);

    expect(await allNames()).toContainEqual(after);
    expect(await allNames()).toContainEqual(["issue", "other", "n", "k"]);
    expect(await finding("names")).toMatchObject({ verdict: "ok" });
  });
});

test("a row whose new name another row has stays as it is, and is told", async () => {
  const names: Names[] = [
    ["instance", null, "default", "k"],
    ["instance", "I", "default", "k"],
    ["instance", null, "", "other"],
    ["instance", "J", "", "other"],
  ];
  await add(...names);
  await follow(database, (await finding("names"))?.remedy);

  const found = await finding("names");

  expect(found).toMatchObject({ verdict: "warning" });
  expect(found?.remedy).toEqual([
    { say: expect.stringMatching(/^2 would get a name that another/) },
  ]);
  expect(await allNames()).toContainEqual(["instance", "I", "default", "k"]);
  // Of two that would be called alike, the one that was written last gets the name.
  expect(await allNames()).toContainEqual(["instance", null, "default", "other"]);
  expect(await allNames()).toContainEqual(["instance", null, "", "other"]);
});

test("a look at every row ends after its time, and doctor says that it was cut", async () => {
  const hurried = { limits: { ...limits, scanMs: 1 } };
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
     select id, 'instance', n::text, '1' from plugin_sidecar.plugins, generate_series(1, 20000) n`,
  );
  expect(await finding("names", hurried)).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/^not known: looking at every row took longer than 0.001 s$/),
  });
  expect(await finding("counters", hurried)).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/^not known/),
  });
});

describe("a counter", () => {
  beforeEach(async () => {
    await add(["issue", "I", "n", "k"], ["issue", "I", "n", "ü"]);
    await database.query(
      "select plugin_sidecar.settle_external_writes(id, false) from plugin_sidecar.plugins",
    );
  });
  const drift = "update plugin_sidecar.plugin_revisions set";
  const waiting = "update plugin_sidecar.plugin_state set value_json = '2' where state_key = 'k'";

  test("that says what a recount says is fine", async () => {
    expect(await finding("counters")).toMatchObject({
      verdict: "ok",
      message: "as a recount has them",
    });
  });

  test.for([
    ["entries", /has 2 entries of 14 bytes, counted as 3 of 14/],
    ["bytes", /has 2 entries of 14 bytes, counted as 2 of 15/],
  ] as const)(
    "whose %s drifted is a problem, and attaching anew mends it",
    async ([column, said]) => {
      await database.query(`${drift} ${column} = ${column} + 1`);
      const found = await finding("counters");
      expect(found).toMatchObject({ verdict: "problem", message: expect.stringMatching(said) });
      expect(found?.remedy).toContainEqual({
        run: expect.stringMatching(/migrate --attach-anew .*--migration-database-url/),
      });

      await follow(database, found?.remedy);

      expect(await finding("counters")).toMatchObject({ verdict: "ok" });
    },
  );

  test("that is missing is a problem", async () => {
    await database.query("delete from plugin_sidecar.plugin_revisions");
    expect(await finding("counters")).toMatchObject({
      verdict: "problem",
      message: expect.stringMatching(/has 2 entries and no counter/),
    });
  });

  test("of an attachment that was cut off is a problem, and migrating completes it", async () => {
    await database.query("select plugin_sidecar.begin_attachment()");
    const found = await finding("counters", { as: "owner" });
    expect(found).toMatchObject({
      verdict: "problem",
      message: expect.stringMatching(/^attaching isn't complete/),
    });

    await follow(database, found?.remedy);

    expect(await finding("counters")).toMatchObject({
      verdict: "ok",
      message: "as a recount has them",
    });
  });

  test("of a plugin whose external writes aren't numbered yet isn't judged", async () => {
    await database.query(`${drift} entries = 0`);
    await database.query(waiting);
    expect(await finding("counters")).toMatchObject({
      verdict: "ok",
      message: expect.stringMatching(/of 1 plugins not known: external writes aren't numbered yet/),
    });
  });

  test("that counts right isn't enough: a revision that is lost is a problem", async () => {
    const stamp = randomUUID();
    await database.query(
      `begin; set local plugin_sidecar.writer = 'sidecar';
       update plugin_sidecar.plugin_state set sidecar_write_id = '${stamp}' where state_key = 'k'; commit`,
    );
    expect(await finding("counters")).toMatchObject({
      verdict: "problem",
      message: expect.stringMatching(/has 1 entries whose revision is lost/),
    });
    await database.query(
      `insert into plugin_sidecar.external_revisions select id, '${stamp}', 1, 5 from plugin_sidecar.plugins`,
    );
    expect(await finding("counters")).toMatchObject({ verdict: "ok" });
  });
});

test("entries whose plugin isn't registered are told, and registering it serves them again", async () => {
  await add(["issue", "I", "n", "k"]);
  await database.query(
    `set session_replication_role = replica; delete from plugin_sidecar.plugins;
     set session_replication_role = origin`,
  );
  const found = await finding("plugins", { as: "owner" });
  expect(found).toMatchObject({
    verdict: "warning",
    message: expect.stringMatching(/aren't registered.*: 1 of [0-9a-f-]{36}$/),
    remedy: expect.arrayContaining([
      { run: expect.stringMatching(/^plugin-state plugin add found-\w{8} --id [0-9a-f-]{36}$/) },
    ]),
  });
});

test("a fault of a trigger is told with its text, in one line", async () => {
  await database.query(
    "insert into plugin_sidecar.trigger_faults values (now(), E'column \"x\"\\n\\u001bdoes not exist')",
  );
  expect(await finding("trigger-faults")).toMatchObject({
    verdict: "problem",
    message: expect.stringMatching(
      /^other programs' writes aren't noted since \S+ \S+, .*: column "x" does not exist$/,
    ),
  });
});

test("row-level security hides from the serving role, not from the owner", async () => {
  await database.query("alter table plugin_sidecar.plugin_state enable row level security");
  expect(await finding("row-security")).toMatchObject({
    verdict: "problem",
    kind: "permission",
    message: expect.stringMatching(/hides rows of plugin_state from role test_serving/),
  });
  expect(await finding("row-security", { as: "owner" })).toMatchObject({ verdict: "ok" });
});

test("room that deleted large values leave empty is told", async () => {
  await database.query(
    `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, state_key, value_json)
     select id, 'instance', n::text,
            (select to_jsonb(string_agg(md5(random()::text || n || i), '')) from generate_series(1, 300) i)
       from plugin_sidecar.plugins, generate_series(1, 200) n`,
  );
  await database.query("delete from plugin_sidecar.plugin_state where state_key <> '1'");
  await database.query("vacuum (truncate off, analyze) plugin_sidecar.plugin_state");
  const strict = { limits: { ...limits, bloatBytes: 1_000_000 } };
  await expect
    .poll(() => finding("vacuum", strict))
    .toMatchObject({
      verdict: "warning",
      message: expect.stringMatching(/large values of plugin_state \(TOAST\) take \d+ MiB/),
    });
  await follow(database, (await finding("vacuum", strict))?.remedy);
  expect(await finding("vacuum", strict)).toMatchObject({ verdict: "ok" });
});
