#!/usr/bin/env bash
# The Dockerfile, as far as it can be checked without a Docker daemon: its steps are done by
# replay-dockerfile.js on exactly the files that .dockerignore lets through, with its Node.js, and
# what comes out is run by an ordinary user, as the image does.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_grpcurl
need_node "$(sed -n 's/^FROM node:\([0-9]*\)-.*/\1/p' "$CI_ROOT/Dockerfile" | head -1)"
directory=$(mktemp -d "$CI_WORK/container.XXXXXX")
chmod 0755 "$directory"
clone "$directory/project"
cd "$directory/project"
node scripts/ci/replay-dockerfile.js "$directory/image"

app=$directory/image/app
say "what the image holds in /app"
du -sk "$app"/* "$app/node_modules"/* | sort -rn | head -n 20
(cd "$app" && find . -maxdepth 1 | sort)
for unwanted in src test node_modules/typescript node_modules/vitest node_modules/@bufbuild/buf; do
  [[ ! -e $app/$unwanted ]] || die "the image has $unwanted"
done

say "the image's commands, run by nobody"
grep -qxF 'ENTRYPOINT ["node", "/app/dist/main.js"]' Dockerfile || die "another ENTRYPOINT"
grep -qxF 'CMD ["serve"]' Dockerfile || die "another CMD"
grep -qF 'CMD ["node", "/app/dist/main.js", "health"' Dockerfile || die "another HEALTHCHECK"
as_nobody node "$app/dist/main.js" version
cp -R scripts test "$directory/"
cat >"$directory/check.sh" <<END
set -euo pipefail
node "$app/dist/main.js" health --timeout-ms 2000
"$directory/test/clients/grpcurl/check.sh"
END
as_nobody env XDG_STATE_HOME="$CI_WORK/nobody/var-lib" \
  node "$directory/scripts/ci/with-sidecar.js" --start "node $app/dist/main.js serve" -- \
  bash "$directory/check.sh"
