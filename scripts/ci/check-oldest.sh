#!/usr/bin/env bash
# The test suite on the oldest Node.js and the oldest PostgreSQL that there may be; `npm cit` runs it on
# the newest PostgreSQL. Uses the node_modules and dist of `npm cit`.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_postgres_15
need_node 20.11.1
cd "$CI_ROOT"
export PLUGIN_STATE_TEST_PG_BIN_DIR=/usr/lib/postgresql/15/bin
"$PLUGIN_STATE_TEST_PG_BIN_DIR/postgres" --version
node node_modules/vitest/vitest.mjs run --exclude 'test/fuzz/**'
