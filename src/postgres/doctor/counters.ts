import { ownSchema } from "../own-schema.ts";
import {
  type Check,
  type Examination,
  type Finding,
  ok,
  problem,
  rows,
  scan,
  warning,
} from "./check.ts";
import { addPluginSteps, migrateSteps } from "./migration.ts";
import { type Remedy, type Step, say } from "./remedy.ts";
import { isAttached, pluginsTable, stateTable } from "./shape.ts";

interface CounterRow {
  readonly id: string;
  /** Whether the host's registry has it. */
  readonly registered: boolean;
  /** Whether external writes wait for their numbers: the next call gives them. */
  readonly waiting: boolean;
  /** Null where there is no counter. */
  readonly counted: string | null;
  readonly entries: string;
  readonly counted_bytes: string | null;
  /** Null where sizes weren't looked at. */
  readonly bytes: string | null;
  /** Rows whose revision is looked up and isn't there. */
  readonly lost: string;
}

/** One snapshot of the counters and of what they count. */
function recount(examination: Examination, bytes: string): string {
  return `
    with state as (
      select s.plugin_id, count(*) as entries, ${bytes} as bytes,
             count(*) filter (where s.sidecar_write_id is not null and x.stamp is null) as lost
        from ${stateTable(examination)} s
        left join ${ownSchema}.external_revisions x
               on x.plugin_id = s.plugin_id and x.stamp = s.sidecar_write_id
       group by s.plugin_id)
    select coalesce(s.plugin_id, c.plugin_id) as id, p.id is not null as registered,
           exists (select from ${ownSchema}.external_writes w
                    where w.plugin_id = coalesce(s.plugin_id, c.plugin_id)) as waiting,
           c.entries as counted, coalesce(s.entries, 0) as entries,
           c.bytes as counted_bytes, coalesce(s.bytes, 0) as bytes, coalesce(s.lost, 0) as lost
      from state s full join ${ownSchema}.plugin_revisions c on c.plugin_id = s.plugin_id
      left join ${pluginsTable(examination)} p on p.id = coalesce(s.plugin_id, c.plugin_id)
     order by 1`;
}

const entryBytes = `sum(${ownSchema}.entry_bytes(s.scope_id, s.namespace, s.state_key, s.value_json))`;

/** That each plugin's counter says what a recount says; quotas and ListScopes rely on it. */
export const counters: Check = {
  name: "counters",
  run: async (examination) => {
    if (!(await isAttachmentComplete(examination))) {
      return problem(
        "configuration",
        "attaching isn't complete: not all entries were counted",
        say("Unless it is under way:"),
        ...(await migrateSteps(examination)),
      );
    }
    const withBytes = await scan<CounterRow & Record<string, unknown>>(
      examination,
      recount(examination, entryBytes),
    );
    const found =
      withBytes ??
      (await scan<CounterRow & Record<string, unknown>>(
        examination,
        recount(examination, "null::bigint"),
      ));
    return found === undefined
      ? warning(
          `not known: counting took longer than ${examination.limits.scanMs / 1000} s`,
          say("Attaching anew counts without a bound, in small steps:"),
          ...(await migrateSteps(examination, "--attach-anew")),
        )
      : await judge(examination, found, withBytes !== undefined);
  },
};

async function isAttachmentComplete(examination: Examination): Promise<boolean> {
  const found = await rows(
    examination,
    `select from ${ownSchema}.installation where attached_at is not null`,
  );
  return found.length > 0;
}

async function judge(
  examination: Examination,
  found: readonly CounterRow[],
  hasBytes: boolean,
): Promise<Finding> {
  const settled = found.filter(({ registered, waiting }) => registered && !waiting);
  const drifted = settled.filter(
    ({ counted, entries, counted_bytes, bytes }) =>
      counted === null || counted !== entries || (hasBytes && counted_bytes !== bytes),
  );
  const lost = settled.filter((one) => one.lost !== "0");
  if (drifted.length + lost.length === 0) {
    const waiting = found.filter((one) => one.waiting).length;
    return ok(
      [
        hasBytes
          ? "as a recount has them"
          : "as a recount has them, but for sizes, which took too long",
        ...(waiting > 0
          ? [`of ${waiting} plugins not known: external writes aren't numbered yet`]
          : []),
      ].join("; "),
    );
  }
  const said = [...drifted.slice(0, 3).map(describe), ...lost.slice(0, 3).map(describeLost)];
  return problem(
    "configuration",
    `${drifted.length + lost.length} plugins' counters or revisions aren't right, so quotas and revisions aren't: ${said.join("; ")}`,
    say(
      "Something wrote without the triggers: while they were disabled or missing, or in a session with session_replication_role = replica. Attach anew, which counts and tells clients so by a new epoch:",
    ),
    ...(await migrateSteps(examination, "--attach-anew")),
  );
}

function describe({ id, counted, entries, counted_bytes, bytes }: CounterRow): string {
  return counted === null
    ? `plugin ${id} has ${entries} entries and no counter`
    : `plugin ${id} has ${entries} entries of ${bytes ?? "?"} bytes, counted as ${counted} of ${counted_bytes}`;
}

function describeLost({ id, lost }: CounterRow): string {
  return `plugin ${id} has ${lost} entries whose revision is lost`;
}

interface PluginsRow {
  readonly id: string | null;
  readonly entries: string;
  readonly registered: number;
}

/** Whether there is a plugin to serve, and whether every entry has one. */
export const plugins: Check = {
  name: "plugins",
  run: async (examination) => {
    const found = await scan<PluginsRow & Record<string, unknown>>(
      examination,
      // The distinct plugins of a large table, one look into its index for each.
      `with recursive used as (
         (select plugin_id from ${stateTable(examination)} order by plugin_id limit 1)
         union all
         select (select s.plugin_id from ${stateTable(examination)} s
                  where s.plugin_id > u.plugin_id order by s.plugin_id limit 1)
           from used u where u.plugin_id is not null),
       orphans as (
         select u.plugin_id, (select count(*) from ${stateTable(examination)} s
                               where s.plugin_id = u.plugin_id) as entries
           from used u
          where u.plugin_id is not null
            and not exists (select from ${pluginsTable(examination)} p where p.id = u.plugin_id))
       select o.plugin_id as id, coalesce(o.entries, 0) as entries,
              (select count(*)::int from ${pluginsTable(examination)}) as registered
         from (values (1)) one left join orphans o on true
        order by o.entries desc limit 10`,
    );
    if (found === undefined) {
      return ok(`not known: looking took longer than ${examination.limits.scanMs / 1000} s`);
    }
    const registered = found[0]?.registered ?? 0;
    const orphans = found.filter(({ id }) => id !== null);
    if (orphans.length > 0) {
      const said = orphans.map(({ id, entries }) => `${entries} of ${id}`).join(", ");
      return warning(
        `entries of plugins that aren't registered, which no binding can serve: ${said}`,
        ...(await orphanSteps(examination, orphans)),
      );
    }
    return registered > 0 ? ok(`${registered} registered`) : await noPlugin(examination);
  },
};

async function noPlugin(examination: Examination): Promise<Finding> {
  return isAttached(examination)
    ? warning("none is registered", say("Let the host install one."))
    : warning(
        "none is registered",
        say("Register one, by any key:"),
        ...(await addPluginSteps(examination, "demo")),
      );
}

/** In tables of our own a plugin is registered again; a host's registry is the host's. */
async function orphanSteps(
  examination: Examination,
  orphans: readonly PluginsRow[],
): Promise<Remedy> {
  if (isAttached(examination)) {
    const state = stateTable(examination);
    return [
      say(`A plugin that was installed anew has another id. To give it the old entries, as the owner, with both ids:
update ${state} set plugin_id = 'NEW' where plugin_id = 'OLD';
Entries that nobody needs: delete from ${state} where plugin_id = 'OLD';`),
    ];
  }
  const steps: Step[] = [say("Register them under their old ids again, by any key:")];
  for (const { id } of orphans) {
    steps.push(
      ...(await addPluginSteps(examination, `found-${id?.slice(0, 8)}`, "--id", id ?? "")),
    );
  }
  return steps;
}
