#!/usr/bin/env bash
# The Dockerfile, by hadolint.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_hadolint
"$CI_WORK/hadolint/bin/hadolint" "$CI_ROOT/Dockerfile"
