#!/usr/bin/env bash
# No file in the repository names a machine that built it, or where packages are fetched from: both
# are each machine's own. (Letters in brackets keep the patterns from finding themselves.)
set -euo pipefail
cd "$(dirname "$0")/../.."

failed=0

# absent WHAT PATTERN [PATHSPEC…]
absent() {
  local what=$1 pattern=$2
  shift 2
  if git grep -nIE -- "$pattern" -- . "$@"; then
    echo "^ $what" >&2
    failed=1
  fi
}

absent "a path of a build machine" '(^|[^A-Za-z0-9_.~-])/(wor[k]|hom[e]/[a-z]|User[s])/'
# Comments and tests speak of a project in root's home.
absent "a path in root's home" '(^|[^A-Za-z0-9_.~-])/roo[t]/' ':!src/embedded' ':!test' ':!docs'
absent "a package registry" 'npm[j]s\.(org|com)|yarn[p]kg\.com|py[p]i\.(org|python)|python[h]osted|(proxy|sum)\.go[l]ang|goproxy\.[a-z]|cr[a]tes\.io|maven\.(org|apache)|deb\.de[b]ian'
absent "a private network's address" '(^|[^0-9.])(10\.[0-9]+|192\.16[8]|172\.(1[6-9]|2[0-9]|3[01]))\.[0-9]+\.[0-9]+' ':!test'
absent "where a package was fetched from" '"resolve[d]":' package-lock.json
exit "$failed"
