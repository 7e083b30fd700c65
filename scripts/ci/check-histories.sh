#!/usr/bin/env bash
# Recorded histories and fault rounds, longer than the suite has them, on the embedded PostgreSQL. Uses
# the node_modules and dist of `npm cit`.
#   check-histories.sh           100,000 calls of 3 sidecars and a foreign writer, strictly serialisable
#   check-histories.sh faults    20 rounds each: PostgreSQL killed, sidecar killed, network cut
# A failed history says its seed: PLUGIN_STATE_HISTORY_SEED=SEED asks the same again (what meets what
# is up to the machine).
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
case ${1-histories} in
  histories)
    export PLUGIN_STATE_HISTORY_CALLS=${PLUGIN_STATE_HISTORY_CALLS-100000}
    say "$PLUGIN_STATE_HISTORY_CALLS calls"
    node node_modules/vitest/vitest.mjs run test/history
    ;;
  faults)
    export PLUGIN_STATE_FAULT_ROUNDS=${PLUGIN_STATE_FAULT_ROUNDS-20}
    say "$PLUGIN_STATE_FAULT_ROUNDS rounds"
    node node_modules/vitest/vitest.mjs run test/faults --exclude 'test/faults/recovery/**'
    ;;
  *) die "unknown mode $1" ;;
esac
