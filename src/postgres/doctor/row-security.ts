import { ownSchema } from "../own-schema.ts";
import { type Check, ok, problem, rows } from "./check.ts";
import { quote, say, sql } from "./remedy.ts";

/**
 * That no policy hides rows from the serving role: a hidden entry would be absent to Get, and there to
 * every Set. As row_security_active() has it, but of any role.
 */
export const rowSecurity: Check = {
  name: "row-security",
  run: async (examination) => {
    const { role, stateSchema } = examination;
    const found = await rows<{ name: string }>(
      examination,
      `select c.relname as name
         from pg_class c join pg_namespace n on n.oid = c.relnamespace, pg_roles r
        where r.rolname = $1 and c.relrowsecurity and not (r.rolsuper or r.rolbypassrls)
          and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
          and (n.nspname = $2 and c.relname in ('plugins', 'plugin_state') or n.nspname = $3)
        order by 1`,
      [role, stateSchema, ownSchema],
    );
    return found.length === 0
      ? ok(`hides nothing from role ${role}`)
      : problem(
          "permission",
          `row-level security hides rows of ${found.map(({ name }) => name).join(", ")} from role ${role}: entries would seem absent, and writes to them fail`,
          say(
            "As a superuser. Where nobody is one, serve as the owner of the tables, unless they force row-level security on it:",
          ),
          sql(`alter role ${quote(role)} bypassrls;`),
        );
  },
};
