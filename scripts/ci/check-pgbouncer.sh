#!/usr/bin/env bash
# The test suite and a recorded history with PgBouncer 1.18 in transaction mode between the sidecars and
# the embedded PostgreSQL, with 2 server connections for each database, as an ordinary account, on a unix
# socket. Uses the node_modules and dist of `npm cit`. test/support/global-setup.ts starts it.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_pgbouncer
cd "$CI_ROOT"
export PLUGIN_STATE_TEST_PGBOUNCER=/usr/sbin/pgbouncer
export PLUGIN_STATE_NO_PREPARED_STATEMENTS=true
export PLUGIN_STATE_HISTORY_CALLS=${PLUGIN_STATE_HISTORY_CALLS-20000}
"$PLUGIN_STATE_TEST_PGBOUNCER" --version

mapfile -t files < <(database_tests)

# left_out FILE REASON
left_out() {
  local file=$1 kept=() one
  say "left out: $file: $2"
  for one in "${files[@]}"; do
    [[ $one == "$file" ]] || kept+=("$one")
  done
  files=("${kept[@]}")
}

left_out test/doctor/doctor.test.ts "doctor is asked what it finds on a connection to the server itself"
left_out test/faults/faults.test.ts "it kills a server of its own, which no pooler stands before"
left_out test/abuse.test.ts "it is about connections of clients, and their memory"
left_out test/json-text.postgres.test.ts "it compares values with PostgreSQL and has no sidecar"

node node_modules/vitest/vitest.mjs run "${files[@]}"
