#!/usr/bin/env bash
# Makes the secrets that compose.yaml mounts, in ./secrets beside this file, or in DIRECTORY; those there are stay.
#   make-secrets.sh [DIRECTORY]
set -euo pipefail
directory=${1:-$(dirname "$0")/secrets}
mkdir -p "$directory"
chmod 0700 "$directory"

# random NAME: 32 hexadecimal digits, which a URL needs no escapes for.
random() {
  [[ -s $directory/$1 ]] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$directory/$1"
}

# url NAME ROLE PASSWORD-NAME
url() {
  [[ -s $directory/$1 ]] ||
    printf 'postgres://%s:%s@postgres:5432/plugin_state\n' "$2" "$(<"$directory/$3")" >"$directory/$1"
}

random postgres-password
random owner-password
random sidecar-password
random token
url owner-database-url plugin_state_owner owner-password
url sidecar-database-url plugin_state sidecar-password
chmod 0444 "$directory"/*
# A token is rotated by writing into its file.
chmod 0644 "$directory/token"
