import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { withClient } from "../../src/postgres/connection.ts";
import { migrate } from "../../src/postgres/migrate.ts";
import { type TestDatabase, testDatabase } from "../support/database.ts";
import { hostTables } from "../support/host-tables.ts";
import { Operator } from "./operator.ts";

const inPublic = ["--state-schema", "public"];

const entry = (columns: string, values: string) => `
  insert into public.plugin_state (plugin_id, state_key, value_json, ${columns})
  select id, 'k', '1', ${values} from public.plugins`;

/** What a database may be like when somebody first asks doctor about it. */
const shapes: [name: string, flags: string[], damage: string][] = [
  ["an empty database", [], ""],
  ["a host's database, without a word of its schema", [], hostTables],
  ["a host's database", inPublic, hostTables],
  [
    "a host's database in a schema of its own, asked for another",
    inPublic,
    `create schema host; set search_path = host; ${hostTables}; reset search_path`,
  ],
  [
    "a host's database whose dump lost the constraint, with an entry that is there thrice",
    inPublic,
    `${hostTables};
     alter table plugin_state drop constraint plugin_state_unique_entry_idx,
       add constraint plugin_state_unique_entry_idx
       unique (plugin_id, scope_kind, scope_id, namespace, state_key);
     ${[1, 2, 3].map(() => entry("scope_kind", "'instance'")).join(";")}`,
  ],
  [
    "a host's database without any key, as of a restore that stopped half-way",
    inPublic,
    `${hostTables};
     alter table plugin_state drop constraint plugin_state_plugin_id_plugins_id_fk,
       drop constraint plugin_state_unique_entry_idx, drop constraint plugin_state_pkey;
     alter table plugins drop constraint plugins_pkey;
     ${[1, 2].map(() => entry("scope_kind, scope_id", "'issue', 'I'")).join(";")}`,
  ],
  [
    "a host's database with rows that no call can name",
    inPublic,
    `${hostTables};
     ${entry("scope_kind, scope_id", "'issue', ''")};
     ${entry("scope_kind, namespace", "'instance', ''")};
     ${entry("scope_kind", "'Company '")};
     ${entry("scope_kind, scope_id", "'user', 'U'")};
     ${entry("scope_kind, scope_id", "'instance', 'I'")}`,
  ],
  [
    "a host's database with a column that somebody renamed",
    inPublic,
    `${hostTables}; alter table plugin_state rename column namespace to name_space`,
  ],
];

/** What may be wrong with a database that was attached to. */
const damages: [name: string, flags: string[], damage: string][] = [
  ["nothing", inPublic, ""],
  ["nothing, but --state-schema wasn't given", [], ""],
  [
    "a trigger gone, another disabled, and rows written meanwhile",
    inPublic,
    `drop trigger plugin_sidecar_log_update on plugin_state;
     alter table plugin_state disable trigger plugin_sidecar_log_insert,
       disable trigger plugin_sidecar_log_truncate;
     ${entry("scope_kind", "'instance'")}`,
  ],
  [
    "columns gone, and one of another type",
    inPublic,
    `alter table plugin_state drop sidecar_bytes, drop sidecar_write_id;
     alter table plugin_state alter sidecar_revision type text`,
  ],
  [
    "an index gone, and one that a killed build left invalid",
    inPublic,
    `drop index plugin_sidecar_expiry_idx;
     update pg_index set indisvalid = false where indexrelid = 'plugin_sidecar_key_order_idx'::regclass`,
  ],
  [
    "a fault of a trigger, and a counter that drifted",
    inPublic,
    `insert into plugin_sidecar.trigger_faults values (now(), 'column x does not exist');
     update plugin_sidecar.plugin_revisions set entries = 17`,
  ],
  ["the sidecar's schema gone", inPublic, "drop schema plugin_sidecar cascade"],
  ["a table of the sidecar's gone", inPublic, "drop table plugin_sidecar.external_writes"],
  [
    "transactions that are read-only",
    inPublic,
    `do $$ begin
       execute format('alter database %I set default_transaction_read_only = on', current_database());
     end $$`,
  ],
  [
    "an autovacuum that is off",
    inPublic,
    "alter table plugin_state set (autovacuum_enabled = off)",
  ],
];

async function follow(database: TestDatabase, flags: readonly string[], role?: string) {
  const operator = new Operator(database, flags, role);
  await operator.follow();
  const schema = operator.stateSchema;
  const [plugin] = await database.query<{ key: string }>(
    `select plugin_key as key from "${schema}".plugins limit 1`,
  );
  expect(await operator.serve(plugin?.key)).toBe('"kept"');
  return operator.done;
}

describe("what doctor advises, done to the letter, leads to a sidecar that serves", () => {
  test.for(shapes)("from %s", async ([, flags, damage]) => {
    await using database = await testDatabase("template0");
    await database.query(damage);

    const done = await follow(database, flags);

    expect(done.join("\n")).toMatch(/^plugin-state migrate/m);
  });

  test.for(damages)("of a database that was attached to, with %s", async ([, flags, damage]) => {
    await using database = await testDatabase("template0");
    await database.query(hostTables);
    await migrate(database.connection, "public");
    await database.query(damage);

    await follow(database, flags);
  });

  test("of a database with tables of its own, damaged, and without the plugin of its entries", async () => {
    await using database = await testDatabase();
    const id = await database.addPlugin("gone");
    await database.query(
      `insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, namespace, state_key, value_json)
       values ('${id}', 'instance', '', 'k', '1')`,
    );
    await database.query(
      `alter table plugin_sidecar.plugin_state drop constraint plugin_state_plugin_id_plugins_id_fk,
         disable trigger plugin_sidecar_log_insert;
       delete from plugin_sidecar.plugins`,
    );

    const done = await follow(database, []);

    expect(done.join("\n")).toContain(`plugin-state plugin add found-${id.slice(0, 8)} --id ${id}`);
  });

  test("as a role that has no rights at all, beside an owner who isn't a superuser", async () => {
    await using roles = await rolesOfOurs();
    const { owner, app } = roles;
    await using database = await testDatabase("template0");
    await database.query(hostTables);
    await database.query(
      `alter table plugins owner to ${owner}; alter table plugin_state owner to ${owner}`,
    );

    const done = await follow(database, inPublic, app);

    expect(done.join("\n")).toMatch(
      new RegExp(`migrate --migration-database-url .*${owner}:PASSWORD@.* --state-schema public`),
    );
  });

  test("as a role from which row-level security hides everything", async () => {
    await using roles = await rolesOfOurs();
    await using database = await testDatabase("template0");
    await database.query(hostTables);
    await migrate(database.connection, "public");
    await database.query("alter table plugin_state enable row level security");

    const done = await follow(database, inPublic, roles.app);

    expect(done).toContain(`alter role "${roles.app}" bypassrls;`);
  });
});

/** Roles that the whole server has, for one test. */
async function rolesOfOurs() {
  const suffix = randomBytes(6).toString("hex");
  const [owner, app] = [`owner_${suffix}`, `app_${suffix}`];
  await using database = await testDatabase("template0");
  const server = new URL(database.ownerUrl);
  server.pathname = "/postgres";
  const onServer = (text: string) =>
    withClient({ connectionString: server.href }, (client) => client.query(text));
  await onServer(`create role ${owner} login; create role ${app} login`);
  return {
    owner,
    app,
    [Symbol.asyncDispose]: async () => void (await onServer(`drop role ${owner}, ${app}`)),
  };
}
