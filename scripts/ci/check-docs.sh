#!/usr/bin/env bash
# docs/configuration.md is what the program's own tables say.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_clone
cd "$CI_WORK/clone"
npm run --silent build
node scripts/generate-configuration-docs.js --check
