#!/usr/bin/env bash
# 100,000 damaged calls, frames and bytes against a sidecar of its own process, on the embedded
# PostgreSQL. Uses the node_modules and dist of `npm cit`. A failure says its seed:
# PLUGIN_STATE_FUZZ_SEED=SEED sends the same again.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
export PLUGIN_STATE_FUZZ_INPUTS=${PLUGIN_STATE_FUZZ_INPUTS-100000}
say "$PLUGIN_STATE_FUZZ_INPUTS inputs"
node node_modules/vitest/vitest.mjs run test/fuzz
