#!/usr/bin/env bash
# The test suite on another PostgreSQL or another Node.js. Uses the node_modules and dist of `npm cit`.
#   check-suite.sh postgres-15
#   check-suite.sh node VERSION
set -euo pipefail
. "$(dirname "$0")/tools.sh"

case $1 in
  postgres-15)
    need_postgres_15
    export PLUGIN_STATE_TEST_PG_BIN_DIR=/usr/lib/postgresql/15/bin
    "$PLUGIN_STATE_TEST_PG_BIN_DIR/postgres" --version
    ;;
  node) need_node "$2" ;;
esac
cd "$CI_ROOT"
node node_modules/vitest/vitest.mjs run
