#!/usr/bin/env bash
# Every way in which a database fails, 10 rounds each under load, on the embedded PostgreSQL: errors,
# health, what was acknowledged, connections. That health follows and service resumes within the 2 s that are
# promised is asserted here, where little else runs; the suite allows more. Uses the node_modules and
# dist of `npm cit`.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
export PLUGIN_STATE_FAULT_ROUNDS=${PLUGIN_STATE_FAULT_ROUNDS-10}
export PLUGIN_STATE_RECOVERY_LIMIT=${PLUGIN_STATE_RECOVERY_LIMIT-promised}
say "$PLUGIN_STATE_FAULT_ROUNDS rounds"
# Half of the time is waiting, with three at once.
node node_modules/vitest/vitest.mjs run test/faults/recovery --maxWorkers 4
