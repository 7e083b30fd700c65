import type { ScopeKind } from "../../state/entry.ts";
import { maxKeyBytes, maxNamespaceBytes, maxScopeIdBytes } from "../../state/limits.ts";
import { type Check, type Examination, ok, scan, warning } from "./check.ts";
import { type Remedy, say, sql } from "./remedy.ts";
import { stateTable } from "./shape.ts";

const kinds: Readonly<Record<ScopeKind, true>> = {
  instance: true,
  company: true,
  project: true,
  project_workspace: true,
  agent: true,
  issue: true,
  goal: true,
  run: true,
};
const kindList = Object.keys(kinds)
  .map((kind) => `'${kind}'`)
  .join(", ");

/** What keeps a row from being named by a call: in words, and as a condition on the row. */
const faults: readonly (readonly [said: string, condition: string])[] = [
  ["of an unknown scope kind", `scope_kind not in (${kindList})`],
  ["of kind instance with a scope id", "scope_kind = 'instance' and scope_id is not null"],
  [
    "of another kind without a scope id",
    `scope_kind in (${kindList}) and scope_kind <> 'instance' and scope_id is null`,
  ],
  ["with scope id ''", "scope_kind <> 'instance' and scope_id = ''"],
  ["with namespace ''", "namespace = ''"],
  ["with key ''", "state_key = ''"],
  [
    `with a scope id of more than ${maxScopeIdBytes} bytes`,
    `octet_length(scope_id) > ${maxScopeIdBytes}`,
  ],
  [
    `with a namespace of more than ${maxNamespaceBytes} bytes`,
    `octet_length(namespace) > ${maxNamespaceBytes}`,
  ],
  [`with a key of more than ${maxKeyBytes} bytes`, `octet_length(state_key) > ${maxKeyBytes}`],
];
const isBad = faults.map(([, condition]) => `(${condition})`).join("\n     or ");

/** A kind that is one but for its case or for blanks. */
const likelyKind = "lower(btrim(scope_kind))";
const isLikely = `${likelyKind} in (${kindList})`;

/** A name that a call can tell: cut where it is too long, with a digest of the whole. */
function named(value: string, maxBytes: number, empty: string): string {
  // A character has at most 4 bytes, and the digest 33 with its mark.
  const characters = Math.floor((maxBytes - 33) / 4);
  return `case when coalesce(${value}, '') = '' then '${empty}'
              when octet_length(${value}) > ${maxBytes} then left(${value}, ${characters}) || '~' || md5(${value})
              else ${value} end`;
}

/** The names that a row may have instead. */
interface Renaming {
  readonly kind: string;
  readonly id: string;
  readonly key: string;
  /** Of which of the rows. */
  readonly where: string;
}

const byRule: Renaming = {
  kind: likelyKind,
  id: `case when ${likelyKind} = 'instance' then null
              else ${named("scope_id", maxScopeIdBytes, "(none)")} end`,
  key: named("state_key", maxKeyBytes, "(empty)"),
  where: isLikely,
};

const intoInstance: Renaming = {
  kind: "'instance'",
  id: "null::text",
  key: named(
    "scope_kind || '/' || coalesce(scope_id, '') || '/' || state_key",
    maxKeyBytes,
    "(empty)",
  ),
  where: `not ${isLikely}`,
};

/** The rows with what they would be called; n = 1 for the newest of those that would be called alike. */
function renamed(table: string, { kind, id, key, where }: Renaming): string {
  return `renamed as (
  select *, row_number() over (partition by plugin_id, kind, scope, name_space, name
                               order by updated_at desc, id desc) as n
    from (
      select id, plugin_id, updated_at, ${kind} as kind,
         ${id} as scope,
         ${named("namespace", maxNamespaceBytes, "default")} as name_space,
         ${key} as name
        from ${table}
       where ${where} and (
        ${isBad})) r)`;
}

function isFree(table: string): string {
  return `not exists (
     select from ${table} t
      where t.plugin_id = r.plugin_id and t.scope_kind = r.kind and t.scope_id is not distinct from r.scope
        and t.namespace = r.name_space and t.state_key = r.name)`;
}

function renameStatement(table: string, renaming: Renaming): string {
  return `with ${renamed(table, renaming)}
update ${table} s
   set scope_kind = r.kind, scope_id = r.scope, namespace = r.name_space, state_key = r.name
  from renamed r
 where s.id = r.id and r.n = 1 and ${isFree(table)};`;
}

interface FaultRow {
  readonly ord: number;
  readonly entries: number;
  readonly example: string;
}

/** That every row can be named by a call: other programs may write what the sidecar would refuse. */
export const names: Check = {
  name: "names",
  run: async (examination) => {
    const found = await countFaults(examination);
    if (found === undefined) {
      return cut(examination);
    }
    if (found.length === 0) {
      return ok("every row can be named by a call");
    }
    const list = found.map(
      ({ ord, entries, example }) => `${entries} ${faults[ord]?.[0]} (id ${example})`,
    );
    return warning(
      `rows that no call can reach, though they count for quotas: ${list.join("; ")}`,
      ...(await renameSteps(examination)),
    );
  },
};

async function countFaults(examination: Examination): Promise<FaultRow[] | undefined> {
  const tests = faults.map(([, condition], ord) => `case when ${condition} then ${ord} end`);
  return await scan<FaultRow & Record<string, unknown>>(
    examination,
    `select ord, count(*)::int as entries, min(id::text) as example
       from ${stateTable(examination)}, unnest(array[${tests.join(", ")}]) ord
      where (${isBad}) and ord is not null
      group by ord order by ord`,
  );
}

interface RenamingRow {
  /** Rows that can have their new name. */
  readonly free: number;
  /** Rows whose new name another row has. */
  readonly taken: number;
}

async function countRenamed(
  examination: Examination,
  renaming: Renaming,
): Promise<RenamingRow | undefined> {
  const table = stateTable(examination);
  const can = `n = 1 and ${isFree(table)}`;
  const found = await scan<RenamingRow & Record<string, unknown>>(
    examination,
    `with ${renamed(table, renaming)}
     select count(*) filter (where ${can})::int as free,
            count(*) filter (where not (${can}))::int as taken from renamed r`,
  );
  return found?.[0];
}

async function renameSteps(examination: Examination): Promise<Remedy> {
  const table = stateTable(examination);
  const likely = await countRenamed(examination, byRule);
  const unknown = await countRenamed(examination, intoInstance);
  const taken = (likely?.taken ?? 0) + (unknown?.taken ?? 0);
  return [
    ...(likely?.free !== 0
      ? [
          say(
            "They can be given names that a call can tell, where no other row has that name. Programs that look for them under the old ones won't find them. As the owner:",
          ),
          sql(renameStatement(table, byRule)),
        ]
      : []),
    ...(unknown?.free !== 0
      ? [
          say(
            "Scope kinds that the host knows and this release doesn't: leave the rows alone, and use a release that does. Kinds that nobody knows can be moved into the instance scope, their old names before the key:",
          ),
          sql(renameStatement(table, intoInstance)),
        ]
      : []),
    ...(taken > 0
      ? [
          say(
            `${taken} would get a name that another row has, and stay as they are: compare them, and delete those that aren't needed.`,
          ),
        ]
      : []),
  ];
}

function cut(examination: Examination) {
  return warning(
    `not known: looking at every row took longer than ${examination.limits.scanMs / 1000} s`,
    say("Count those that no call can reach when there is time:"),
    sql(`select count(*) from ${stateTable(examination)}
 where ${isBad};`),
  );
}
