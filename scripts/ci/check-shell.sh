#!/usr/bin/env bash
# The shell scripts, by shellcheck.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_debian shellcheck
cd "$CI_ROOT"
shellcheck --external-sources --source-path=SCRIPTDIR .ci/run scripts/ci/*.sh test/clients/*/*.sh deploy/*/*.sh
