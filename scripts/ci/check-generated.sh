#!/usr/bin/env bash
# src/gen is what `npm run generate` makes of proto/ and buf.gen.yaml. In a clone: nothing is written here.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_clone
cd "$CI_WORK/clone"
npm run generate
changes=$(git status --porcelain -- src/gen)
[[ -z $changes ]] || {
  git --no-pager diff -- src/gen
  die "src/gen is stale, run \`npm run generate\`:" "$changes"
}
