#!/usr/bin/env bash
# The example hosts, for real: each runs for some seconds, loses a sidecar to kill -9, gets it back, and is
# stopped as Ctrl-C does it. Needs dist (`npm run build`).
set -euo pipefail
. "$(dirname "$0")/tools.sh"

readonly patience_seconds=90
clients=$CI_ROOT/test/clients
need_python python -r "$clients/python/requirements.txt"
export PYTHON=$CI_WORK/python/bin/python
directory=$(mktemp -d "$CI_WORK/hosts.XXXXXX")
chmod 0755 "$directory"
host=
output=

# Whatever happens, no host stays; its sidecars end with it.
trap '[[ -z $host ]] || kill -KILL "$host" 2>/dev/null || true' EXIT

# start NAME COMMAND…: runs a host whose output is kept, what sidecars log apart: it may come amid a line.
start() {
  say "$1"
  output=$directory/$1.out
  shift
  # Job control gives a host a process group of its own, and lets it have SIGINT.
  set -m
  "$@" >"$output" 2>"$output.log" &
  host=$!
  set +m
}

fail() {
  cat "$output.log" "$output"
  die "$*"
}

# until_printed COUNT PATTERN: waits until so many lines match.
until_printed() {
  local deadline=$((SECONDS + patience_seconds))
  until (($(grep -cE "$2" "$output" || true) >= $1)); do
    kill -0 "$host" 2>/dev/null || fail "the host ended without $1 times: $2"
    ((SECONDS < deadline)) || fail "not after $patience_seconds s, $1 times: $2"
    sleep 0.2
  done
}

# kill_sidecar PATTERN: kills the process that the first matching line names.
kill_sidecar() {
  kill -KILL "$(grep -m1 -E "$1" "$output" | sed 's/.*process \([0-9]*\).*/\1/')"
}

# stop_host PATTERN: interrupts the host, which must end well, print the pattern, and leave nothing.
stop_host() {
  local code=0 pid pids
  kill -INT "$host"
  wait "$host" || code=$?
  host=
  cat "$output.log" "$output"
  ((code == 0)) || die "exit code $code"
  grep -qE "$1" "$output" || die "it didn't print: $1"
  mapfile -t pids < <(sed -n 's/.*process \([0-9]*\).*/\1/p' "$output" | sort -u)
  for pid in "${pids[@]}"; do
    ! kill -0 "$pid" 2>/dev/null || die "it left process $pid behind"
  done
}

say "stubs for the worker"
mkdir "$directory/stubs"
"$PYTHON" -m grpc_tools.protoc -I "$CI_ROOT/proto" --python_out="$directory/stubs" \
  --grpc_python_out="$directory/stubs" "$CI_ROOT"/proto/pluginstate/v1/*.proto
export PYTHONPATH=$directory/stubs PYTHONDONTWRITEBYTECODE=1

cd "$CI_ROOT"
node_modules/.bin/tsc -p examples/host
start typescript node examples/host/dist/host.js "$directory/data"
until_printed 1 'host: all are ready'
until_printed 3 'acme\.[a-z]+: health SERVING'
until_printed 1 'worker: this is run 1;'
kill_sidecar 'acme\.notes: ready'
until_printed 1 'acme\.notes: process [0-9]+ ended with SIGKILL, unasked'
until_printed 1 'acme\.notes: restart 1 in [0-9]+ ms'
until_printed 2 'acme\.notes: ready'
until_printed 2 'acme\.notes: health SERVING'
# The worker's sidecar too: what it wrote is there, and the address is the one it was told.
kill_sidecar 'acme\.mail: ready'
until_printed 2 'acme\.mail: ready'
runs=$(grep -c 'worker: this is run' "$output")
until_printed $((runs + 1)) 'worker: this is run'
! grep -q 'moved from' "$output" || fail "a sidecar has another address than before"
stop_host 'host: all ended: stopped, stopped, stopped'

start python env PLUGIN_STATE_DATA_DIR="$directory/data-of-python" \
  "$PYTHON" examples/python/host.py node dist/main.js serve
until_printed 1 '^ready .* at 127\.0\.0\.1:[0-9]+ process'
until_printed 1 '^call answered for demo: True'
until_printed 1 '^health SERVING'
kill_sidecar '^ready'
until_printed 1 '^health UNKNOWN'
until_printed 1 '^ended with -9'
until_printed 2 '^ready'
until_printed 2 '^call answered for demo: True'
until_printed 2 '^health SERVING'
(($(grep '^ready' "$output" | sed 's/ process.*//' | sort -u | wc -l) == 1)) ||
  fail "it has another address than before"
stop_host '^stopped with exit code 0'
say "both hosts did what they should"
