#!/usr/bin/env bash
# What finds more the longer it runs, longer than the suite has it, on the embedded PostgreSQL. Uses the
# node_modules and dist of `npm cit`.
#   histories    100,000 calls of 3 sidecars and a foreign writer, strictly serialisable
#   faults       20 rounds each: PostgreSQL killed, sidecar killed, network cut
#   cuts         50 rounds of clients that are cut off while they don't read; 20 minutes, so only when it's named
#   fuzz         100,000 damaged calls, frames and bytes against a sidecar of its own process
# All others side by side, as each waits much; or those that are named: check-long-runs.sh NAME…
# A failed history says its seed, and so does a failed fuzz run: PLUGIN_STATE_HISTORY_SEED=SEED or
# PLUGIN_STATE_FUZZ_SEED=SEED asks the same again (what meets what is up to the machine).
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
export PLUGIN_STATE_HISTORY_CALLS=${PLUGIN_STATE_HISTORY_CALLS-100000}
export PLUGIN_STATE_FAULT_ROUNDS=${PLUGIN_STATE_FAULT_ROUNDS-20}
export PLUGIN_STATE_CUT_ROUNDS=${PLUGIN_STATE_CUT_ROUNDS-50}
export PLUGIN_STATE_FUZZ_INPUTS=${PLUGIN_STATE_FUZZ_INPUTS-100000}
(($# > 0)) || set -- histories faults fuzz
files=()
for name; do
  case $name in
    histories) files+=(test/history) && say "$PLUGIN_STATE_HISTORY_CALLS calls" ;;
    faults) files+=(test/faults) && say "$PLUGIN_STATE_FAULT_ROUNDS rounds" ;;
    cuts) files+=(test/cuts) && say "$PLUGIN_STATE_CUT_ROUNDS rounds" ;;
    fuzz) files+=(test/fuzz) && say "$PLUGIN_STATE_FUZZ_INPUTS inputs" ;;
    *) die "unknown: $name" ;;
  esac
done
node node_modules/vitest/vitest.mjs run "${files[@]}" --exclude 'test/faults/recovery/**'
