#!/usr/bin/env bash
# deploy/: the manifests by the schemas and tools of the systems they are for, then what they say,
# done here on a real PostgreSQL; and backup and restore as docs/operations.md has them.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_grpcurl
need_kube_score
need_compose_go
need_kubernetes_validate
need_debian systemd
need_postgres_15
PATH=/usr/lib/postgresql/15/bin:$PATH
cd "$CI_ROOT"
directory=$(mktemp -d "$CI_WORK/deploy.XXXXXX")
chmod 0711 "$directory"
[[ -e dist/main.js ]] || npm run --silent build

say "kubernetes"
manifests=(worker migrate network-policy disruption-budget)
manifests=("${manifests[@]/%/.yaml}")
manifests=("${manifests[@]/#/deploy/kubernetes/}")
# The oldest with native sidecars switched on, and the newest that is known.
for version in 1.29.0 1.37.0; do
  "$CI_WORK/kubernetes/bin/kubernetes-validate" --strict -k "$version" "${manifests[@]}"
done
# First, that a mistake would be found at all.
sed 's/periodSeconds:/periodMinutes:/' deploy/kubernetes/worker.yaml >"$directory/wrong.yaml"
if "$CI_WORK/kubernetes/bin/kubernetes-validate" --strict -k 1.29.0 "$directory/wrong.yaml"; then
  die "an unknown field wasn't found"
fi
# The image's uid is 1000, and kube-score wants ten times as much.
kube-score score --kubernetes-version v1.29 --output-format ci \
  --ignore-test container-security-context-user-group-id "${manifests[@]}" | tee "$directory/score"
if grep -q '^\[CRITICAL\]' "$directory/score"; then die "kube-score found something critical"; fi

say "systemd"
install -d "$directory/units"
cp deploy/systemd/* "$directory/units/"
printf '#!/bin/sh\nexec node %s/dist/main.js "$@"\n' "$CI_ROOT" >"$directory/plugin-state"
chmod 0755 "$directory/plugin-state"
sed -i "s|/usr/bin/plugin-state|$directory/plugin-state|" "$directory"/units/*.service
for unit in plugin-state@acme.notes.service plugin-state@acme.notes.socket plugin-state.service \
  plugin-state-migrate.service; do
  SYSTEMD_UNIT_PATH="$directory/units:" systemd-analyze verify --man=no "$unit" 2>&1 |
    tee "$directory/verified"
  # It warns of unknown settings and succeeds.
  [[ ! -s $directory/verified ]] || die "$unit has faults"
done
for unit in "$directory"/units/*.service; do
  systemd-analyze security --offline=true --threshold=15 --no-pager "$unit" | tail -n 1
done

say "compose"
deploy/compose/make-secrets.sh "$directory/secrets"
cmd -format json deploy/compose/compose.yaml >"$directory/compose.json"
published=$(node -p '
  const { services } = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
  Object.values(services).flatMap(({ ports = [] }) => ports).length' "$directory/compose.json")
[[ $published == 0 ]] || die "compose.yaml publishes ports"

say "a PostgreSQL with two roles"
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => {
  console.log(s.address().port); s.close(); })')
server=$CI_WORK/nobody/deploy-postgres
as_nobody initdb --pgdata "$server" --username postgres --encoding UTF8 --locale C.UTF-8 \
  --auth-local trust --auth-host scram-sha-256 >"$directory/initdb"
as_nobody pg_ctl --pgdata "$server" --log "$server.log" --wait \
  --options "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=$server" start
trap 'as_nobody pg_ctl --pgdata "$server" --mode immediate stop' EXIT
export PGHOST=$server PGPORT=$port PGUSER=postgres
# As the postgres image runs it.
SECRETS=$directory/secrets ROLES=deploy/postgres/roles.sql deploy/compose/initialize.sh
sed -i "s/@postgres:5432/@127.0.0.1:$port/" "$directory"/secrets/*-database-url

node scripts/ci/run-manifests.js "$directory" "$directory/compose.json"

say "what the sidecar's role may not do"
sidecar_url=$(<"$directory/secrets/sidecar-database-url")
owner_url=$(<"$directory/secrets/owner-database-url")
for statement in 'truncate plugin_sidecar.plugin_state' 'drop table plugin_sidecar.plugin_state' \
  'create table plugin_sidecar.mine ()' 'create table public.mine ()' 'create schema mine'; do
  if psql --no-psqlrc --quiet "$sidecar_url" --command "$statement"; then
    die "it may: $statement"
  fi
done
# Neither less nor more than `plugin-state grants` prints.
node dist/main.js doctor --role plugin_state --database-url-file "$directory/secrets/owner-database-url" |
  tee "$directory/doctor"
for check in grants least-privilege; do
  grep -qE "^ok +$check " "$directory/doctor" || die "the sidecar's role isn't as it should be: $check"
done

say "backup and restore"
# The statements are those of docs/operations.md.
fence() { sed -n "/^<!-- $1 -->$/,/^\`\`\`$/p" docs/operations.md | sed '1,2d;$d'; }
state() {
  psql --no-psqlrc --quiet --no-align --tuples-only "$1" --command "
    select p.plugin_key, r.revision, r.entries, r.bytes, count(s.*), max(s.sidecar_revision), sum(s.sidecar_bytes)
      from plugin_sidecar.plugins p join plugin_sidecar.plugin_revisions r on r.plugin_id = p.id
      left join plugin_sidecar.plugin_state s on s.plugin_id = p.id
     group by 1, 2, 3, 4 order by 1"
}
before=$(state "$owner_url")
cd "$directory"
OWNER_URL=$owner_url bash -euo pipefail -c "$(cd "$CI_ROOT" && fence backup)"
psql --no-psqlrc --quiet --command 'alter database plugin_state rename to plugin_state_lost'
bash -euo pipefail -c "$(cd "$CI_ROOT" && fence restore)"
[[ $(state "$owner_url") == "$before" ]] || die "the restored state differs: $(state "$owner_url")" "$before"
(cd "$CI_ROOT" && fence skip-revisions) | psql --no-psqlrc -v ON_ERROR_STOP=1 "$owner_url"
cd "$CI_ROOT"
echo "before: $before"
echo "after:  $(state "$owner_url")"
node scripts/ci/run-manifests.js "$directory" "$directory/compose.json" >"$directory/restored" 2>&1 ||
  die "not on a restored database: $(<"$directory/restored")"

say "a constraint that a dump has lost"
psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 "$owner_url" <<'END'
alter table plugin_sidecar.plugin_state drop constraint plugin_state_unique_entry_idx;
alter table plugin_sidecar.plugin_state add constraint plugin_state_unique_entry_idx
  unique (plugin_id, scope_kind, scope_id, namespace, state_key);
insert into plugin_sidecar.plugin_state (plugin_id, scope_kind, namespace, state_key, value_json)
  select plugin_id, scope_kind, namespace, state_key, '"again"' from plugin_sidecar.plugin_state limit 1;
END
find=$(fence find-lost-constraint)
repair=$(fence repair-lost-constraint)
[[ $(psql --no-psqlrc -At "$owner_url" --command "$find") == plugin_sidecar.plugin_state\|f ]] ||
  die "the constraint wasn't found to be lost"
psql --no-psqlrc -v ON_ERROR_STOP=1 "$owner_url" <<<"$repair"
[[ $(psql --no-psqlrc -At "$owner_url" --command "$find") == plugin_sidecar.plugin_state\|t ]] ||
  die "the constraint wasn't repaired"

say "the other statements of docs/operations.md"
for name in vacuum-settings bloat longest-transactions largest-plugins; do
  fence "$name" | psql --no-psqlrc -v ON_ERROR_STOP=1 "$owner_url"
done
