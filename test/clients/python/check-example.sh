#!/usr/bin/env bash
# Does what examples/python/worker.py says in its header, then runs it twice against the sidecar at
# PLUGIN_STATE_ADDRESS. PYTHON is an interpreter with requirements.txt installed.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
PATH=$(dirname "${PYTHON:-$(command -v python3)}"):$PATH

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R "$root/proto" "$root/examples" "$copy/"
cd "$copy/examples/python"
generate=$(grep -o 'python -m grpc_tools.protoc .*' worker.py)
echo "$generate"
eval "$generate"
python worker.py | tee first
python worker.py | tee second
grep -q '^this is run 1$' first
grep -q '^this is run 2$' second
grep -q '^nobody was here before$' first
grep -q '^somebody was here before$' second
grep -q '^note/000002 = {"pid": [0-9]*, "run": 2} at revision 6$' second
grep -q 'INVALID_ARGUMENT INVALID_VALUE' second
echo "6 checks passed"
