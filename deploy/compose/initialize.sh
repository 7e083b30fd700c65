#!/usr/bin/env bash
# Run by the postgres image once, when its volume is new.
set -euo pipefail
secrets=${SECRETS:-/run/secrets}
psql --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  -v owner_password="$(<"$secrets/owner-password")" \
  -v sidecar_password="$(<"$secrets/sidecar-password")" \
  -f "${ROLES:-/etc/plugin-state/roles.sql}"
