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
import { quote, type Remedy, say, sql } from "./remedy.ts";
import { settingsOf, settleForRole } from "./settings.ts";

/** That the server knows UNIQUE NULLS NOT DISTINCT. Without it nothing else is looked at. */
export const serverVersion: Check = {
  name: "server-version",
  run: async (examination) => {
    const { number, name } = await row<{ number: number; name: string }>(
      examination,
      "select current_setting('server_version_num')::int as number, current_setting('server_version') as name",
    );
    // As server_version_num has it: 150004 is 15.4.
    return number >= examination.limits.minServerVersion
      ? ok(`PostgreSQL ${name}`)
      : problem(
          "configuration",
          `PostgreSQL ${name} is too old`,
          say("Use PostgreSQL 15 or later: upgrade this server, or give another one's URL."),
        );
  },
};

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
          say("Use a database that was created with encoding 'UTF8'."),
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
      say("As the owner of the database, outside of a transaction:"),
      sql(`reindex database concurrently ${quote(name)};`),
      sql(`alter database ${quote(name)} refresh collation version;`),
    );
  },
};

/** Whether the database takes writes. Of a standby nothing else is said: nothing can be mended there. */
export const writable: Check = {
  name: "writable",
  run: async (examination) => {
    if (examination.isStandby) {
      return problem(
        "unavailable",
        "the server is a standby, which takes no writes",
        say(
          "Give the primary's URL, and ask doctor about that. After a failover, see that the name leads to the new primary.",
        ),
      );
    }
    const { read_only: readOnly } = await row<{ read_only: boolean }>(
      examination,
      "select current_setting('transaction_read_only')::boolean as read_only",
    );
    return readOnly
      ? problem(
          "unavailable",
          "transactions are read-only: default_transaction_read_only is on, and calls that write fail",
          say("If nobody meant it, as a superuser, or as the role itself:"),
          sql("set default_transaction_read_only = off;"),
          settleForRole(examination, "default_transaction_read_only", "off"),
        )
      : ok("the database takes writes");
  },
};

/** What each setting must be for "acknowledged" to mean "kept". */
const durable: Readonly<Record<string, readonly string[]>> = {
  fsync: ["on"],
  full_page_writes: ["on"],
  synchronous_commit: ["on", "1", "remote_write", "remote_apply", "local"],
};

/** Whether what was acknowledged survives a crash. */
export const durability: Check = {
  name: "durability",
  run: async (examination) => {
    const names = [...Object.keys(durable), "synchronous_standby_names"];
    const found = new Map(await settingsOf(examination, names));
    if (!examination.isPooled && found.get("synchronous_commit") === "off") {
      // Our sessions switch it on, unless the database URL asks for it: this one is of the same URL.
      found.set("synchronous_commit", await ownSynchronousCommit(examination));
    }
    const of = (name: string) => found.get(name) ?? "";
    const loose = Object.keys(durable).filter((name) => !durable[name]?.includes(of(name)));
    return loose.length > 0 ? lossy(examination, loose, of) : standbys(examination, of);
  },
};

async function ownSynchronousCommit(examination: Examination): Promise<string> {
  const { setting } = await row<{ setting: string }>(
    examination,
    "select current_setting('synchronous_commit') as setting",
  );
  return setting;
}

function lossy(
  examination: Examination,
  loose: readonly string[],
  of: (name: string) => string,
): Finding {
  const found = loose.map((name) => `${name} is ${of(name)}`).join(", ");
  const ofServer = loose.filter((name) => name !== "synchronous_commit");
  return problem(
    "configuration",
    `${found}: a crash may lose writes that were acknowledged`,
    ...(ofServer.length > 0
      ? [say("As a superuser; what is on the server's command line has to be changed there:")]
      : []),
    ...ofServer.map((name) => sql(`alter system set ${name} = on;`)),
    ...(ofServer.length > 0 ? [sql("select pg_reload_conf();")] : []),
    ...(loose.length > ofServer.length ? commitSteps(examination) : []),
  );
}

function commitSteps(examination: Examination): Remedy {
  return [
    say(
      "Take synchronous_commit out of the database URL, if it's there. Behind a pooler, as a superuser or as the role itself:",
    ),
    settleForRole(examination, "synchronous_commit", "on"),
  ];
}

function standbys(examination: Examination, of: (name: string) => string): Finding {
  const isLocal = of("synchronous_commit") === "local" && of("synchronous_standby_names") !== "";
  return isLocal
    ? warning(
        "synchronous_commit is local: writes don't wait for the synchronous standbys there are, and a failover may lose them",
        say("As a superuser, or as the role itself:"),
        settleForRole(examination, "synchronous_commit", "on"),
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
          say(
            "A sidecar takes 3 (--database-connections). Raise the limit, put a pooler in between, or serve several plugins from one sidecar.",
          ),
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
    const long = await rows<{ what: string; seconds: number; ending: string }>(
      examination,
      `select * from (
         select 'process ' || pid || coalesce(' of ' || nullif(application_name, ''), '') as what,
                extract(epoch from clock_timestamp() - xact_start)::int as seconds,
                format('select pg_terminate_backend(%s);', pid) as ending
           from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
         union all
         select 'prepared transaction ' || gid, extract(epoch from clock_timestamp() - prepared)::int,
                format('rollback prepared %L;', gid)
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
      say(
        "If nobody waits for them, end them, as their own role or as a superuser; and set idle_in_transaction_session_timeout for the roles that forget them.",
      ),
      ...long.map(({ ending }) => sql(ending)),
    );
  },
};
