#!/usr/bin/env bash
# What the steps before this one started has ended: no sidecar of theirs runs, and no PostgreSQL. A test
# that doesn't release what it uses is found so.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

# Those that run, a line each.
left_overs() {
  local process command
  for process in /proc/[0-9]*; do
    command=$({ tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null) || continue
    case $command in
      # Whatever a step starts has its environment.
      *"main.js "*) grep -qzx "CI_WORK=$CI_WORK" "$process/environ" 2>/dev/null || continue ;;
      *"postgres -D $CI_WORK/"* | *"postgres -D $TMPDIR/"*) ;;
      *) continue ;;
    esac
    say "${process#/proc/}: $command"
  done
}

for ((attempt = 0; attempt < 10; attempt++)); do
  found=$(left_overs)
  if [[ -z $found ]]; then
    say "nothing is left"
    exit 0
  fi
  sleep 1
done
die "$found"
