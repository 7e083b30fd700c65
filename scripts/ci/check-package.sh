#!/usr/bin/env bash
# What `npm pack` makes holds what a user needs and no more, and works where it's installed.
set -euo pipefail
. "$(dirname "$0")/tools.sh"

allowed='^(package\.json|README\.md|LICENSE|CHANGELOG\.md|dist/.*\.js|dist/supervisor/[a-z-]*\.d\.ts|migrations/[^/]*\.sql|proto/.*\.proto|docs/(configuration|errors|metrics)\.md|deploy/.*)$'

need_clone
need_grpcurl
directory=$(mktemp -d "$CI_WORK/package.XXXXXX")
chmod 0755 "$directory"
cd "$CI_WORK/clone"
tarball=$directory/$(npm pack --silent --pack-destination "$directory")

say "contents"
tar -tzf "$tarball" | sed 's#^package/##' | sort >"$directory/files"
cat "$directory/files"
unwanted=$(grep -vE "$allowed" "$directory/files" || true)
[[ -z $unwanted ]] || die "the package has what it shouldn't:" "$unwanted"
lacking=$({
  printf '%s\n' package.json README.md LICENSE CHANGELOG.md docs/{configuration,errors,metrics}.md
  git ls-files 'migrations/*.sql' 'proto/*.proto' deploy
  git ls-files 'src/*.ts' ':!src/*.d.ts' | sed 's#^src/\(.*\)\.ts$#dist/\1.js#'
} | sort | comm -23 - "$directory/files")
[[ -z $lacking ]] || die "the package lacks:" "$lacking"

say "publint"
npx --yes publint@0.3.25 run . --strict

say "installed in an empty project"
mkdir "$directory/project"
cd "$directory/project"
npm init --yes --silent >/dev/null
npm install --omit=dev "$tarball"
npm ls --omit=dev
npx --no-install plugin-state version
npx --no-install plugin-state --help >/dev/null
node -e '
  const { createRequire } = require("node:module");
  const from = createRequire(process.cwd() + "/");
  for (const path of ["package.json", "proto/pluginstate/v1/entry.proto"])
    from.resolve("plugin-state-sidecar/" + path);
'

say "the supervisor is imported, and its types compile"
node --input-type=module -e '
  import { SidecarError, startSidecar } from "plugin-state-sidecar/supervisor";
  const start = startSidecar({ bindings: [{ plugin: "demo" }], databaseUrl: "no-url" });
  const error = await start.catch((reason) => reason);
  if (!(error instanceof SidecarError && error.reason === "USAGE")) throw error;
'
mkdir consumer
cat >consumer/host.mts <<'END'
import { type SidecarOptions, startSidecar } from "plugin-state-sidecar/supervisor";
const options: SidecarOptions = { bindings: [{ plugin: "demo" }], onEvent: ({ type }) => console.log(type) };
const sidecar = await startSidecar(options);
const address: string | undefined = sidecar.bindings[0]?.address;
await sidecar.health.until("SERVING");
const end: "stopped" | "not_retryable" | "too_many_restarts" = (await sidecar.onExit).reason;
console.log(address, end);
// @ts-expect-error An unknown option is an error, so the types aren't `any`.
await startSidecar({ bindings: [], nonsense: true });
END
# The types of Node.js are the consumer's own.
"$CI_ROOT/node_modules/.bin/tsc" --noEmit --strict --module nodenext --target es2022 --lib es2022 \
  --types node --typeRoots "$CI_ROOT/node_modules/@types" consumer/host.mts

cp "$CI_ROOT/scripts/ci/with-sidecar.js" with-sidecar.mjs
node with-sidecar.mjs --start "node_modules/.bin/plugin-state serve" -- \
  "$CI_ROOT/test/clients/grpcurl/check.sh"
