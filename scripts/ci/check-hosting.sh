#!/usr/bin/env bash
# The host's contract, with real processes and signals, more often than the suite has it, on the embedded
# PostgreSQL. Uses the node_modules and dist of `npm cit`.
#   check-hosting.sh             every line of docs/hosting.md, 10 rounds
#   check-hosting.sh restarts    300 restarts under clients that write: grpc-js, and Python's gRPC
# Before a release: PLUGIN_STATE_RESTARTS=1000 .ci/run restarts
set -euo pipefail
. "$(dirname "$0")/tools.sh"

cd "$CI_ROOT"
# These end sidecars, never the machine.
export PLUGIN_STATE_TEST_FSYNC=off
case ${1-contract} in
  contract)
    export PLUGIN_STATE_FAULT_ROUNDS=${PLUGIN_STATE_FAULT_ROUNDS-10}
    say "$PLUGIN_STATE_FAULT_ROUNDS rounds"
    node node_modules/vitest/vitest.mjs run test/host test/docs --exclude 'test/host/*-under-load.test.ts'
    ;;
  restarts)
    export PLUGIN_STATE_RESTARTS=${PLUGIN_STATE_RESTARTS-300}
    need_python python -r test/clients/python/requirements.txt
    export PLUGIN_STATE_TEST_PYTHON=$CI_WORK/python/bin/python
    say "$PLUGIN_STATE_RESTARTS restarts"
    # Two files: they run side by side.
    node node_modules/vitest/vitest.mjs run test/host/replacements-under-load.test.ts \
      test/host/restarts-under-load.test.ts
    ;;
  *) die "unknown mode $1" ;;
esac
