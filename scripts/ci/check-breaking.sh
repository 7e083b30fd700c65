#!/usr/bin/env bash
# The API may grow and not break: proto/ is compared with every state it ever had on this branch, so
# with whatever was landed last. A change that breaks it on purpose says so in its commit message,
# `Proto-Break: why`; states before that commit aren't compared with any more.
set -euo pipefail
cd "$(dirname "$0")/../.."
buf=node_modules/.bin/buf

states=$(mktemp -d)
trap 'rm -rf "$states"' EXIT

# state COMMIT: the directory with that commit's proto/.
state() {
  mkdir -p "$states/$1"
  git archive "$1" proto buf.yaml | tar -x -C "$states/$1"
  echo "$states/$1"
}

# First, that a breaking change would be found at all.
mkdir "$states/broken"
cp -R proto buf.yaml "$states/broken/"
sed -i 's/string key = 3;/bytes key = 3;/' "$states/broken/proto/pluginstate/v1/plugin_state_service.proto"
status=0
"$buf" breaking "$states/broken" --against . >"$states/found" || status=$?
if [[ $status != 100 ]] || ! grep -q 'changed type from "string" to "bytes"' "$states/found"; then
  echo "a changed field type wasn't found: exit code $status" >&2
  cat "$states/found" >&2
  exit 1
fi
echo "a test change of a field's type is found"

if [[ $(git rev-parse --is-shallow-repository) == true ]]; then
  echo "the history is cut off (a shallow clone): there is no telling what was landed before" >&2
  exit 1
fi

bases=()
accepted=
# Not committed yet.
git diff --quiet HEAD -- proto || bases+=("$(git rev-parse HEAD)")
while read -r commit accepted; do
  if [[ -n $accepted ]]; then
    echo "${commit:0:9} breaks the API on purpose: $accepted"
    break
  fi
  if git rev-parse --verify --quiet "$commit^:proto" >/dev/null; then
    bases+=("$(git rev-parse "$commit^")")
  fi
done < <(git log --first-parent --format='%H %(trailers:key=Proto-Break,valueonly,separator=%x3B)' -- proto)

if ((${#bases[@]} == 0)) && [[ -z $accepted ]]; then
  echo "no commit has an earlier proto/: nothing to compare with"
fi
failed=0
for base in "${bases[@]}"; do
  echo "against ${base:0:9} ($(git log -1 --format='%as %s' "$base"))"
  "$buf" breaking --against "$(state "$base")" || failed=1
done
exit "$failed"
