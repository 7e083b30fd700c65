import pg from "pg";
import { minServerVersion } from "../migrate.ts";
import {
  type Check,
  type Examination,
  type Finding,
  ok,
  problem,
  row,
  rows,
  warning,
} from "./check.ts";

/** That the server knows UNIQUE NULLS NOT DISTINCT. */
export const serverVersion: Check = {
  name: "server-version",
  run: async (examination) => {
    const { number, name } = await row<{ number: number; name: string }>(
      examination,
      "select current_setting('server_version_num')::int as number, current_setting('server_version') as name",
    );
    return judgeVersion(number, name);
  },
};

/** @param number As server_version_num has it: 150004 is 15.4. */
export function judgeVersion(number: number, name: string): Finding {
  return number >= minServerVersion
    ? ok(`PostgreSQL ${name}`)
    : problem("configuration", `PostgreSQL ${name} is too old`, "Use PostgreSQL 15 or later.");
}

/** That the database can hold every key and value. */
export const encoding: Check = {
  name: "encoding",
  run: async (examination) => {
    const { encoding } = await row<{ encoding: string }>(
      examination,
      "select current_setting('server_encoding') as encoding",
    );
    return encoding === "UTF8"
      ? ok("UTF8")
      : problem(
          "configuration",
          `the database's encoding is ${encoding}: keys and values with other characters are refused`,
          "Use a database that was created with encoding 'UTF8'.",
        );
  },
};

/** Whether the operating system still sorts texts as it did when the indexes were built. */
export const collation: Check = {
  name: "collation",
  run: async (examination) => {
    const { made, now, name } = await row<{ made: string; now: string; name: string }>(
      examination,
      `select coalesce(datcollversion, '') as made, datname as name,
              coalesce(pg_database_collation_actual_version(oid), '') as now
         from pg_database where datname = current_database()`,
    );
    if (made === "" || now === "") {
      return ok("has no version to compare");
    }
    if (made === now) {
      return ok(`version ${now}`);
    }
    return warning(
      `the database was made with collation version ${made}, the system has ${now}: indexes may be out of order`,
      `As the owner:\nreindex database ${pg.escapeIdentifier(name)};\nalter database ${pg.escapeIdentifier(name)} refresh collation version;`,
    );
  },
};

/** Whether the database takes writes. */
export const writable: Check = {
  name: "writable",
  run: async (examination) => {
    const { standby, read_only: readOnly } = await row<{ standby: boolean; read_only: boolean }>(
      examination,
      `select pg_is_in_recovery() as standby, current_setting('transaction_read_only')::boolean as read_only`,
    );
    if (standby) {
      return problem(
        "unavailable",
        "the server is a standby, which takes no writes",
        "Point the database URL at the primary; several hosts with target_session_attrs=read-write find it.",
      );
    }
    return readOnly
      ? problem(
          "unavailable",
          "transactions are read-only",
          "Look at default_transaction_read_only of the server, the database and the role.",
        )
      : ok("the database takes writes");
  },
};

/** What each setting must be for "acknowledged" to mean "kept". */
const durable: Readonly<Record<string, readonly string[]>> = {
  fsync: ["on"],
  full_page_writes: ["on"],
  // As a role's own setting it may be spelt otherwise.
  synchronous_commit: ["on", "true", "yes", "1", "remote_write", "remote_apply", "local"],
};

/** Whether what was acknowledged survives a crash. */
export const durability: Check = {
  name: "durability",
  run: async (examination) => {
    const settings = await settingsOf(examination);
    const of = (name: string) => settings.get(name) ?? "";
    const loose = Object.keys(durable).filter((name) => !durable[name]?.includes(of(name)));
    return loose.length > 0 ? lossy(loose, of) : standbys(of);
  },
};

/** The settings of this session, and over them those that the examined role's sessions begin with. */
async function settingsOf(examination: Examination): Promise<ReadonlyMap<string, string>> {
  const names = [...Object.keys(durable), "synchronous_standby_names"];
  const settings = await rows<{ name: string; setting: string }>(
    examination,
    `select name, setting from (
       select name, setting, 0 as rank from pg_settings
       union all
       select split_part(c, '=', 1), substr(c, strpos(c, '=') + 1), 1 + (s.setdatabase <> 0)::int
         from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c
        where r.rolname = $2
          and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))) a
      where name = any ($1) order by rank`,
    [names, examination.role],
  );
  return new Map(settings.map(({ name, setting }) => [name, setting]));
}

function lossy(loose: readonly string[], of: (name: string) => string): Finding {
  const found = loose.map((name) => `${name} is ${of(name)}`).join(", ");
  return problem(
    "configuration",
    `${found}: a crash may lose writes that were acknowledged`,
    `Switch on again, for the server, the database and the role: ${loose.join(", ")}.`,
  );
}

function standbys(of: (name: string) => string): Finding {
  const isLocal = of("synchronous_commit") === "local" && of("synchronous_standby_names") !== "";
  return isLocal
    ? warning(
        "synchronous_commit is local: writes don't wait for the synchronous standbys there are",
        "Set synchronous_commit to on, or a failover may lose writes that were acknowledged.",
      )
    : ok(
        `an acknowledged write survives a crash (synchronous_commit is ${of("synchronous_commit")})`,
      );
}

interface Room {
  readonly max: number;
  readonly used: number;
  readonly what: string;
}

/** Whether there is room for a sidecar's connections. */
export const connections: Check = {
  name: "connections",
  run: async (examination) => {
    const all = await roomLeft(examination);
    const [least] = all.toSorted((a, b) => a.max - a.used - (b.max - b.used));
    if (least === undefined) {
      return ok("without limit");
    }
    const { max, used, what } = least;
    const said = `${used} of ${max} connections ${what} are in use`;
    return max - used >= examination.limits.freeConnections
      ? ok(said)
      : warning(
          said,
          "A sidecar takes 3 (--database-connections). Raise the limit, put a pooler in between, or serve several plugins from one sidecar.",
        );
  },
};

/** Of the server, the database and the role, those that have a limit. A negative one is none. */
async function roomLeft(examination: Examination): Promise<Room[]> {
  const found = await rows<Room>(
    examination,
    `with open as (select datid, usesysid from pg_stat_activity where backend_type = 'client backend')
     select current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0) as max,
            (select count(*)::int from open) as used, 'of the server' as what
     union all
     select d.datconnlimit, (select count(*)::int from open where datid = d.oid), 'of the database'
       from pg_database d where d.datname = current_database()
     union all
     select r.rolconnlimit, (select count(*)::int from open where usesysid = r.oid), 'of the role'
       from pg_roles r where r.rolname = $1`,
    [examination.role],
  );
  return found.filter(({ max }) => max >= 0);
}

/** Whether somebody keeps vacuum from removing dead rows. */
export const transactions: Check = {
  name: "transactions",
  run: async (examination) => {
    const long = await rows<{ what: string; seconds: number }>(
      examination,
      `select * from (
         select 'process ' || pid || coalesce(' of ' || nullif(application_name, ''), '') as what,
                extract(epoch from clock_timestamp() - xact_start)::int as seconds
           from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
         union all
         select 'prepared transaction ' || gid, extract(epoch from clock_timestamp() - prepared)::int
           from pg_prepared_xacts where database = current_database()) t
        where seconds >= $1 order by seconds desc limit 3`,
      [examination.limits.transactionSeconds],
    );
    if (long.length === 0) {
      return ok("none is open for long, of those this role may see");
    }
    const list = long.map(({ what, seconds }) => `${what} for ${seconds} s`).join(", ");
    return warning(
      `open for long: ${list}; meanwhile dead rows stay, and every write leaves one`,
      "End them (pg_terminate_backend, rollback prepared), and set idle_in_transaction_session_timeout.",
    );
  },
};
