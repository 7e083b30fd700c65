#!/usr/bin/env bash
# The test suite on the oldest Node.js and the oldest PostgreSQL that there may be; `npm cit` runs it on
# the newest PostgreSQL. Without what has to do with neither, or has steps of its own: damaged bytes, values as
# they are parsed, the embedded PostgreSQL, ways in which a database fails. Uses the node_modules and dist
# of `npm cit`.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_postgres_15
need_node 20.11.1
cd "$CI_ROOT"
export PLUGIN_STATE_TEST_PG_BIN_DIR=/usr/lib/postgresql/15/bin
"$PLUGIN_STATE_TEST_PG_BIN_DIR/postgres" --version
node node_modules/vitest/vitest.mjs run --exclude 'test/fuzz/**' --exclude 'test/json-text.test.ts' \
  --exclude 'test/embedded.test.ts' --exclude 'test/faults/recovery/**'
