#!/usr/bin/env bash
# A client in another language against a real sidecar: check-client.sh grpcurl|python|python-example|go|readme
set -euo pipefail
. "$(dirname "$0")/tools.sh"

clients=$CI_ROOT/test/clients
case $1 in
  grpcurl)
    need_grpcurl
    check=$clients/grpcurl/check.sh
    ;;
  python | python-example)
    need_python python -r "$clients/python/requirements.txt"
    export PYTHON=$CI_WORK/python/bin/python
    check=$clients/python/check${1#python}.sh
    ;;
  readme)
    need_grpcurl
    need_python python -r "$clients/python/requirements.txt"
    export PYTHON=$CI_WORK/python/bin/python
    check=$clients/readme/check.sh
    ;;
  go)
    need_go_stub_generators
    check=$clients/go/check.sh
    ;;
esac
cd "$CI_ROOT"
node scripts/ci/with-sidecar.js -- "$check"
