#!/usr/bin/env bash
# What another PostgreSQL or another Node.js may change of the test suite; the whole of it runs in `npm
# cit`. Uses the node_modules and dist of `npm cit`.
#   check-suite.sh postgres-15     the files whose sidecars have a database, without those about processes
#   check-suite.sh node VERSION    all but faults, fuzz, and what is about the database alone
#   check-suite.sh node VERSION all
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
files=()
excluded=()
case $1 in
  postgres-15)
    need_postgres_15
    export PLUGIN_STATE_TEST_PG_BIN_DIR=/usr/lib/postgresql/15/bin
    "$PLUGIN_STATE_TEST_PG_BIN_DIR/postgres" --version
    mapfile -t files < <(database_tests)
    ;;
  node)
    need_node "$2"
    if [[ ${3-} != all ]]; then
      for pattern in 'test/faults/**' 'test/fuzz/**' 'test/doctor/**' 'test/history/**' \
        'test/*{attached,conditions,expiry,foreign,grants,input-,json-text,merge,migrate,model}*' \
        'test/*{plugin-removed,quota,range,request-id,scopes,settled,update}*'; do
        excluded+=(--exclude "$pattern")
      done
    fi
    ;;
esac
node node_modules/vitest/vitest.mjs run "${files[@]}" "${excluded[@]}"
