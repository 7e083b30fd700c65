#!/usr/bin/env bash
# grpcurl, with no .proto file at hand, against the sidecar at PLUGIN_STATE_ADDRESS and, again, at its
# unix socket PLUGIN_STATE_SOCKET: list, describe, each RPC, a readable error, health.
set -euo pipefail
cd /

service=pluginstate.v1.PluginStateService
checks=0

fail() {
  printf '%s\n' "$1" "--- output:" "$2" >&2
  exit 1
}

# The rest of a grpcurl command line, after the target.
call() {
  grpcurl -plaintext -max-time 10 "${flags[@]}" "${target[@]}" "$@" 2>&1
}

# expect WHAT PATTERN… -- the rest of a grpcurl command line: it succeeds and prints every pattern.
expect() {
  local what=$1 patterns=() output
  shift
  while [[ $1 != -- ]]; do patterns+=("$1"); shift; done
  shift
  output=$(call "$@") || fail "$what: grpcurl failed" "$output"
  require "$what" "$output" "${patterns[@]}"
}

# As expect, but the call fails.
expect_error() {
  local what=$1 patterns=() output
  shift
  while [[ $1 != -- ]]; do patterns+=("$1"); shift; done
  shift
  if output=$(call "$@"); then fail "$what: grpcurl succeeded" "$output"; fi
  require "$what" "$output" "${patterns[@]}"
}

require() {
  local what=$1 output=$2 pattern
  shift 2
  for pattern; do
    grep -qE -- "$pattern" <<<"$output" || fail "$what: no /$pattern/" "$output"
    checks=$((checks + 1))
  done
}

run_checks() {
  local entry="\"scope\": {\"kind\": \"SCOPE_KIND_ISSUE\", \"id\": \"ISS-1\"}, \"namespace\": \"grpcurl-$RANDOM$RANDOM\""
  flags=()
  expect "list" "^$service\$" '^grpc\.health\.v1\.Health$' '^grpc\.reflection\.v1\.ServerReflection$' \
    '^grpc\.reflection\.v1alpha\.ServerReflection$' -- list
  expect "list of RPCs" "^$service\.Set\$" "^$service\.List\$" -- list $service
  expect "describe the service" 'rpc Get ' 'rpc Set ' 'rpc Delete ' 'rpc List ' 'rpc Update ' 'rpc Transact ' \
    'rpc GetServerInfo ' -- describe $service
  expect "describe a message" 'string value_json = 4' -- describe pluginstate.v1.SetRequest
  expect "describe the reasons" 'ERROR_REASON_TOO_LARGE = 3' -- describe pluginstate.v1.ErrorReason
  expect "describe an error detail" 'string reason = 1' -- describe google.rpc.ErrorInfo

  expect "GetServerInfo" '"key": "demo"' '"maxKeyBytes": 1024' -- $service/GetServerInfo
  flags=(-d "{$entry, \"key\": \"greeting\"}")
  expect "Get of a missing entry" '^\{' -- $service/Get
  flags=(-d "{$entry, \"key\": \"greeting\", \"value_json\": \"12345678901234567890.50\"}")
  expect "Set" '"revision": ' '"created": true' -- $service/Set
  flags=(-d "{$entry, \"key\": \"greeting\"}")
  expect "Get" '"valueJson": "12345678901234567890\.50"' '"createTime": ' -- $service/Get
  flags=(-d "{$entry, \"page_size\": 1}")
  expect "List" '"key": "greeting"' '"kind": "SCOPE_KIND_ISSUE"' -- $service/List
  flags=(-d "{$entry, \"key\": \"greeting\"}")
  expect "Delete" '"existed": true' -- $service/Delete

  flags=(-d "{$entry, \"key\": \"n\", \"increment\": {\"by\": \"0.1\"}, \"ttl\": \"60s\", \"keep_ttl\": true}")
  expect "Update" '"valueJson": "0\.1"' '"created": true' '"changed": true' -- $service/Update
  flags=(-d "{$entry, \"key\": \"n\", \"value_json\": \"1\", \"if_absent\": true}")
  expect_error "a lost condition" 'Code: AlreadyExists' '"reason": "ENTRY_EXISTS"' '"current": "[0-9]+"' -- $service/Set
  flags=(-d "{\"checks\": [{$entry, \"key\": \"m\", \"if_absent\": true}],
    \"operations\": [{\"set\": {$entry, \"key\": \"m\", \"value_json\": \"1\"}}]}")
  expect "Transact" '"results": ' '"created": true' -- $service/Transact
  expect_error "a failed check" 'Code: Aborted' '"reason": "CHECKS_FAILED"' \
    '"@type": "type.googleapis.com/pluginstate.v1.FailedChecks"' '"check": 0' \
    '"reason": "ERROR_REASON_ENTRY_EXISTS"' -- $service/Transact
  flags=(-d "{\"names\": [{$entry, \"key\": \"n\"}, {$entry, \"key\": \"m\"}]}")
  expect "BatchGet" '"valueJson": "0\.1"' '"valueJson": "1"' '"expireTime": ' -- $service/BatchGet
  flags=(-d '{"kind": "SCOPE_KIND_ISSUE"}')
  expect "ListScopes" '"entries": "2"' '"bytes": ' -- $service/ListScopes
  flags=(-d "{$entry}")
  expect "DeleteRange" '"deleted": "2"' -- $service/DeleteRange

  flags=(-d "{$entry, \"key\": \"greeting\", \"value_json\": \"{no json\"}")
  expect_error "a bad value" 'Code: InvalidArgument' '"@type": "type.googleapis.com/google.rpc.ErrorInfo"' \
    '"reason": "INVALID_VALUE"' '"domain": "pluginstate"' '"field": "value_json"' -- $service/Set
  flags=(-d "{$entry}")
  expect_error "no key" '"reason": "INVALID_FIELD"' '"field": "key"' -- $service/Delete
  flags=(-d "{$entry, \"key\": \"$(printf 'k%.0s' {1..1025})\"}")
  expect_error "a long key" '"reason": "TOO_LARGE"' '"limit": "1024"' '"size": "1025"' -- $service/Get

  flags=()
  expect "health" '"status": "SERVING"' -- grpc.health.v1.Health/Check
  flags=(-d "{\"service\": \"$service\"}")
  expect "the service's health" '"status": "SERVING"' -- grpc.health.v1.Health/Check
}

target=("$PLUGIN_STATE_ADDRESS")
run_checks
target=(-unix "$PLUGIN_STATE_SOCKET")
run_checks
echo "$checks checks passed"
