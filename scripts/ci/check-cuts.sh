#!/usr/bin/env bash
# Clients that don't read, read slowly, vanish or are frozen, cut off in every way there is, on each Node.js that is
# supported: half a minute of rounds in random order on each, or PLUGIN_STATE_CUT_SECONDS. Uses the node_modules and dist
# of `npm cit`. A failed run says its seed: PLUGIN_STATE_CUT_SEED=SEED asks the same again. check-cuts.sh VERSION…
# runs it on these only; check-long-runs.sh has 50 rounds, on the Node.js that runs it.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
export PLUGIN_STATE_CUT_SECONDS=${PLUGIN_STATE_CUT_SECONDS-30}
(($# > 0)) || set -- 20 22 24
for version; do
  # Each in a shell of its own: the path is changed.
  (
    need_node "$version"
    node node_modules/vitest/vitest.mjs run test/cuts
  )
done
