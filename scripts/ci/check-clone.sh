#!/usr/bin/env bash
# What the README tells a newcomer, in a fresh clone: `npm ci && npm start`, and `npm cit`.
#   check-clone.sh nobody|root plain|ignore-scripts|run-scripts [NODE [NPM]]
# nobody has a home that is new. root clones into its own home, where other accounts can't look, the
# one that runs PostgreSQL among them; of the suite it runs there what depends on that.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
user=$1 scripts=$2

require_root "checking as $user"
need_grpcurl
if [[ -n ${3-} ]]; then need_node "$3"; fi
if [[ -n ${4-} ]]; then need_npm "$4"; fi
say "npm $(npm --version)"
if [[ $user == root ]]; then
  directory=$(mktemp -d "$(getent passwd root | cut -d: -f6)/plugin-state-ci.XXXXXX")
  run() { "$@"; }
  # Root's own default is the machine's.
  data=()
else
  directory=$(mktemp -d "$CI_WORK/clone-$user.XXXXXX")
  run() { as_nobody "$@"; }
  data=(--default-data-dir)
fi
trap 'rm -rf "$directory"' EXIT
clone "$directory/project"
chown -R "$user" "$directory"
cd "$directory/project"

case $scripts in
  # npm 11 runs the install scripts that package.json allows: none.
  plain) if [[ $user == root ]]; then npm ci; else run npm cit; fi ;;
  ignore-scripts) run npm ci --ignore-scripts ;;
  # npm 10 knows no such list.
  run-scripts)
    [[ $(npm --version) == 10.* ]] || die "wanted npm 10, which runs all install scripts"
    run npm ci --foreground-scripts
    ;;
esac

if [[ $user == root && $scripts == plain ]]; then
  say "npm test -- embedded, as far as it is about accounts and places"
  npm test -- embedded --testNamePattern "account|root|library links|directory"
fi

# A terminal's Ctrl-C goes to all its processes; a program's SIGTERM to npm alone, which passes it on
# (npm 10.2 doesn't, whatever it runs).
stops=("--signal SIGINT --group" "--signal SIGTERM")
if [[ $(npm --version) == 10.2.* ]]; then stops[1]+=" --group"; fi
for stop in "${stops[@]}"; do
  say "npm start, $stop"
  # shellcheck disable=SC2086
  run node scripts/ci/with-sidecar.js --start "npm start" "${data[@]}" $stop -- \
    test/clients/grpcurl/check.sh
done
changes=$(git status --porcelain)
[[ -z $changes ]] || die "the commands changed the clone: $changes"
