import { type SessionSetting, sessionSettings } from "../session-settings.ts";
import { type Check, type Examination, type Finding, ok, problem, rows, warning } from "./check.ts";
import { quote, say, sql } from "./remedy.ts";

/**
 * What the examined role's sessions begin with: by the server and the database, and over that by what is
 * set for the role.
 *
 * @param like A pattern of names, as LIKE has it.
 */
export async function settingsOf(
  examination: Examination,
  names: readonly string[],
  like = "",
): Promise<ReadonlyMap<string, string>> {
  const found = await rows<{ name: string; setting: string }>(
    examination,
    `select name, setting from (
       select name, reset_val as setting, 0 as rank from pg_settings
       union all
       select split_part(c, '=', 1), substr(c, strpos(c, '=') + 1), 1 + (s.setdatabase <> 0)::int
         from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c
        where r.rolname = $2
          and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))) a
      where name = any ($1) or name like $3 order by rank`,
    [names, examination.role, like],
  );
  return new Map(found.map(({ name, setting }) => [name, normalized(setting)]));
}

/** A role's own setting is as it was written: true, yes, 1, '10s'. */
function normalized(setting: string): string {
  const text = setting.trim().toLowerCase();
  if (["true", "yes"].includes(text)) return "on";
  if (["false", "no"].includes(text)) return "off";
  return /^0\s*(us|ms|s|min|h|d)$/.test(text) ? "0" : text;
}

/** A statement that makes a role's sessions in this database begin with a setting, whatever else says. */
export function settleForRole({ role, database }: Examination, name: string, value: string) {
  const written = /^\w+$/.test(value) ? value : `'${value}'`;
  return sql(`alter role ${quote(role)} in database ${quote(database)} set ${name} = ${written};`);
}

/** Whether sessions begin with settings that harm: ours set what they need, if no pooler shares them. */
export const settings: Check = {
  name: "settings",
  run: async (examination) => {
    const replicas = await replicaRoles(examination);
    if (replicas.length > 0) {
      return judgeReplicas(replicas);
    }
    const names = sessionSettings.map(({ name }) => name);
    const found = await settingsOf(examination, names, "enable\\_%");
    const harmful = sessionSettings.filter(
      ({ name, value }) => (found.get(name) ?? value) !== value,
    );
    const said = harmful.map(({ name }) => `${name} = ${found.get(name)}`).join(", ");
    if (harmful.length > 0 && examination.isPooled) {
      return judgePooled(examination, harmful, said);
    }
    const off = [...found].filter(([name, value]) => isNeededPlan(name) && value === "off");
    if (off.length > 0) {
      return judgePlans(
        examination,
        off.map(([name]) => name),
      );
    }
    return harmful.every(({ name }) => name === "jit")
      ? ok("nothing harmful")
      : ok(
          `role ${examination.role} begins with ${said}: the sidecar's sessions set what they need`,
        );
  },
};

const timed = /_timeout$/;

function judgePooled(
  examination: Examination,
  harmful: readonly SessionSetting[],
  said: string,
): Finding {
  // What is on unless it was switched off costs some time, and no promise.
  const notable = harmful.filter(({ name }) => name !== "jit");
  if (notable.length === 0) {
    return ok("nothing harmful");
  }
  const steps = [
    say(
      "Behind a pooler the sidecar can't set them for itself. As a superuser, or as the role itself; then let the pooler open its connections anew (PgBouncer: RECONNECT):",
    ),
    ...notable.map(({ name, value }) => settleForRole(examination, name, value)),
  ];
  const isWrong = notable.some(
    ({ name, otherwise }) =>
      otherwise === "wrong" || (timed.test(name) && name !== "idle_session_timeout"),
  );
  const message = `role ${examination.role} begins with ${said}: calls fail`;
  return isWrong
    ? problem("configuration", message, ...steps)
    : warning(`role ${examination.role} begins with ${said}: calls take longer`, ...steps);
}

/** Ways to plan without which entries are found by looking at all of them. */
function isNeededPlan(name: string): boolean {
  return ["enable_indexscan", "enable_indexonlyscan", "enable_nestloop", "enable_sort"].includes(
    name,
  );
}

function judgePlans(examination: Examination, off: readonly string[]): Finding {
  return warning(
    `role ${examination.role} begins with ${off.map((name) => `${name} = off`).join(", ")}: calls may look at every entry`,
    say("As a superuser, or as the role itself:"),
    ...off.map((name) => settleForRole(examination, name, "on")),
  );
}

interface ReplicaRow {
  readonly role: string | null;
  readonly database: string | null;
}

/** Whose sessions begin as those of a replica, in which no trigger fires. Both null: the server's. */
async function replicaRoles(examination: Examination): Promise<ReplicaRow[]> {
  return await rows<ReplicaRow & Record<string, unknown>>(
    examination,
    `select r.rolname as role, d.datname as database
       from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole
       left join pg_database d on d.oid = s.setdatabase
      where exists (select from unnest(s.setconfig) c where c ~* '^session_replication_role=replica')
        and (s.setdatabase = 0 or d.datname = current_database())
     union all
     select null, null from pg_settings
      where name = 'session_replication_role' and reset_val = 'replica'
        and source in ('configuration file', 'command line')`,
  );
}

function judgeReplicas(found: readonly ReplicaRow[]): Finding {
  const who = found.map(({ role, database }) =>
    role !== null ? `role ${role}` : database !== null ? `database ${database}` : "the server",
  );
  return problem(
    "configuration",
    `session_replication_role is replica for ${who.join(", ")}: what such sessions write isn't noticed, as no trigger fires`,
    say("As a superuser:"),
    ...found.flatMap(resetReplica),
  );
}

function resetReplica({ role, database }: ReplicaRow) {
  const reset = "reset session_replication_role;";
  if (role !== null) {
    const where = database === null ? "" : ` in database ${quote(database)}`;
    return [sql(`alter role ${quote(role)}${where} ${reset}`)];
  }
  return database !== null
    ? [sql(`alter database ${quote(database)} ${reset}`)]
    : [sql(`alter system ${reset}`), sql("select pg_reload_conf();")];
}
