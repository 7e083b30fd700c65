#!/usr/bin/env bash
# What attaching does to Paperclip, with its own packages from npm: migrations, backups, transactions, its
# store, a plugin's worker. On one PostgreSQL a run, as an ordinary account, on a unix socket.
#   check-paperclip.sh 15    Debian's
#   check-paperclip.sh 18    the embedded one
# Nothing of those packages is kept. Uses the node_modules and dist of `npm cit`.
# PLUGIN_STATE_TEST_PAPERCLIP_ROWS=2000000 attaches to as many rows as large hosts have.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

older_version=2026.403.0
newer_version=2026.916.1

# need_host NAME VERSION PACKAGE…: the packages in $CI_WORK/host-NAME/node_modules.
need_host() {
  local directory=$CI_WORK/host-$1 version=$2
  shift 2
  [[ -e $directory/complete ]] && return
  mkdir -p "$directory"
  npm install --prefix "$directory" --no-save --ignore-scripts --omit=optional \
    "@paperclipai/db@$version" "$@"
  # Of the server some services are used; its hundreds of dependencies aren't.
  npm pack --silent --pack-destination "$directory" "@paperclipai/server@$version"
  mkdir "$directory/node_modules/@paperclipai/server"
  tar --extract --gzip --file "$directory/paperclipai-server-$version.tgz" --strip-components 1 \
    --directory "$directory/node_modules/@paperclipai/server" package/package.json package/dist
  rm "$directory/paperclipai-server-$version.tgz"
  touch "$directory/complete"
}

need_host older "$older_version"
# What the server's manager of plugin workers imports, and what a worker does.
need_host newer "$newer_version" "@paperclipai/plugin-sdk@$newer_version" \
  "@paperclipai/adapter-utils@$newer_version" pino@10.4.0 pino-http@11.0.0 pino-pretty@13.1.3
export PLUGIN_STATE_TEST_PAPERCLIP_OLDER=$CI_WORK/host-older
export PLUGIN_STATE_TEST_PAPERCLIP_NEWER=$CI_WORK/host-newer

case ${1-} in
  15)
    need_postgres_15
    export PLUGIN_STATE_TEST_PG_BIN_DIR=/usr/lib/postgresql/15/bin
    export PLUGIN_STATE_TEST_PG_PROGRAMS=$PLUGIN_STATE_TEST_PG_BIN_DIR
    ;;
  18)
    need_postgres_18_programs
    export PLUGIN_STATE_TEST_PG_PROGRAMS=$postgres_18_programs
    ;;
  *) die "which PostgreSQL: 15 or 18?" ;;
esac

cd "$CI_ROOT"
"$PLUGIN_STATE_TEST_PG_PROGRAMS/pg_dump" --version
say "Paperclip $older_version and $newer_version"
# Copies of a host's database, and its migrations, take long where the disk is slow.
node node_modules/vitest/vitest.mjs run test/paperclip --testTimeout 180000 --hookTimeout 180000
