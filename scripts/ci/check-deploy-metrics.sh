#!/usr/bin/env bash
# deploy/prometheus and deploy/grafana by promtool, and the metrics that a sidecar really exports.
# (That the two agree is test/metrics/deploy.test.ts.)
set -euo pipefail
. "$(dirname "$0")/tools.sh"

need_promtool
cd "$CI_ROOT"

say "alerts"
promtool check rules deploy/prometheus/alerts.yml
promtool test rules deploy/prometheus/alerts.test.yml

say "every alert is tested"
while read -r alert; do
  grep -A1 "alertname: $alert\$" deploy/prometheus/alerts.test.yml | grep -q exp_alerts ||
    die "no test in which $alert fires"
done < <(sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yml)

say "the dashboard's expressions"
node scripts/ci/dashboard-rules.js deploy/grafana/plugin-state.json >"$CI_WORK/dashboard.rules.yml"
promtool check rules "$CI_WORK/dashboard.rules.yml"

say "the dashboard by Grafana's types"
need_grafana_types
node scripts/ci/dashboard-types.js deploy/grafana/plugin-state.json "$grafana_types" >"$CI_WORK/dashboard.ts"
node_modules/.bin/tsc --ignoreConfig --noEmit --strict --skipLibCheck --target es2022 \
  --module esnext --moduleResolution bundler "$CI_WORK/dashboard.ts"

say "a scrape"
node scripts/ci/with-sidecar.js \
  --start "node dist/main.js serve --metrics-listen unix:$CI_WORK/metrics.sock" \
  -- node scripts/ci/scrape.js "$CI_WORK/metrics.sock" "$CI_WORK/scrape.txt"
# All of it is well-formed; the names of ours, though not those of prom-client, keep the conventions.
promtool check metrics <"$CI_WORK/scrape.txt" >"$CI_WORK/lint.txt" 2>&1 || true
if grep -v '^\(nodejs\|process\)_' "$CI_WORK/lint.txt"; then
  die "promtool found fault with the metrics"
fi
grep -E '^(# (HELP|TYPE) )?plugin_state_' "$CI_WORK/scrape.txt" | promtool check metrics
