import {
  describeGrants,
  type Grant,
  grantStatements,
  heldGrants,
  missingGrants,
  servingGrants,
} from "../grants.ts";
import { type Check, type Examination, type Finding, ok, problem, row, warning } from "./check.ts";
import { quote, say, sql } from "./remedy.ts";

/** Whether the role may do all that serving needs. */
export const grants: Check = {
  name: "grants",
  run: async (examination) => {
    const { client, role, stateSchema } = examination;
    const entry = await entryOf(examination);
    if (entry !== undefined) {
      return entry;
    }
    const missing = await missingGrants(client, role, servingGrants(stateSchema));
    return missing.length === 0
      ? ok(`role ${role} may do all that serving needs`)
      : problem(
          "permission",
          `role ${role} lacks ${describeGrants(missing)}`,
          say("As the role that migrated:"),
          ...grantStatements(missing, role).map(sql),
        );
  },
};

/** What keeps the role from connecting at all. */
async function entryOf(examination: Examination): Promise<Finding | undefined> {
  const { role, database } = examination;
  const { login, connect } = await row<{ login: boolean; connect: boolean }>(
    examination,
    `select rolcanlogin as login, has_database_privilege(oid, current_database(), 'connect') as connect
       from pg_roles where rolname = $1`,
    [role],
  );
  const quoted = quote(role);
  if (!login) {
    return problem(
      "permission",
      `role ${role} may not log in`,
      say("As a superuser, or a role that administers it:"),
      sql(`alter role ${quoted} login;`),
    );
  }
  return connect
    ? undefined
    : problem(
        "permission",
        `role ${role} may not connect to this database`,
        say("As the owner of the database:"),
        sql(`grant connect on database ${quote(database)} to ${quoted};`),
      );
}

/** Whether the role may do more than serving needs. */
export const leastPrivilege: Check = {
  name: "least-privilege",
  run: async (examination) => {
    if (examination.isEmbedded) {
      return ok("the embedded database has one role, which owns it");
    }
    const held = await powers(examination);
    const much = held.length > 0 ? held : await excess(examination);
    if (much.length === 0) {
      return ok(`role ${examination.role} may do nothing but serve`);
    }
    return warning(
      `role ${examination.role} ${much.join(", ")}`,
      say(
        "Serve as a role of its own (`plugin-state grants ROLE`), and give the owner's URL as --migration-database-url.",
      ),
    );
  },
};

/** What makes single rights meaningless: to be a superuser, or to own what they are about. */
async function powers(examination: Examination): Promise<string[]> {
  const { role, stateSchema } = examination;
  const found = await row<Record<"superuser" | "createrole" | "owner" | "creates", boolean>>(
    examination,
    `select r.rolsuper as superuser, r.rolcreaterole as createrole,
            exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname in ('plugin_sidecar', $2) and c.relkind = 'r'
                       and pg_has_role(r.oid, c.relowner, 'member')) as owner,
            exists (select from pg_namespace n where n.nspname in ('plugin_sidecar', $2)
                       and has_schema_privilege(r.oid, n.oid, 'create')) as creates
       from pg_roles r where r.rolname = $1`,
    [role, stateSchema],
  );
  if (found.superuser) {
    return ["is a superuser"];
  }
  return [
    ...(found.createrole ? ["may create roles"] : []),
    ...(found.owner ? ["owns the tables"] : found.creates ? ["may create in the schemas"] : []),
  ];
}

const tablePrivileges = [
  "SELECT",
  "INSERT",
  "UPDATE",
  "DELETE",
  "TRUNCATE",
  "REFERENCES",
  "TRIGGER",
];

/** Rights on the tables beyond the list, of a role that isn't their owner. */
async function excess(examination: Examination): Promise<string[]> {
  const { client, role, stateSchema } = examination;
  const unneeded = servingGrants(stateSchema)
    .filter(({ kind }) => kind === "table")
    .map((grant): Grant => {
      const privileges = tablePrivileges.filter((one) => !grant.privileges.includes(one));
      return { ...grant, privileges };
    });
  const held = await heldGrants(client, role, unneeded);
  return held.length === 0 ? [] : [`has ${describeGrants(held)} without need`];
}
