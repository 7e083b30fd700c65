#!/usr/bin/env bash
# Generates Python stubs from proto/ and runs worker.py against the sidecar at PLUGIN_STATE_ADDRESS.
# PYTHON is an interpreter with requirements.txt installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
proto=$(cd "$here/../../../proto" && pwd)
python=${PYTHON:-python3}

stubs=$(mktemp -d)
trap 'rm -rf "$stubs"' EXIT
"$python" -m grpc_tools.protoc -I "$proto" --python_out="$stubs" --grpc_python_out="$stubs" \
  "$proto"/pluginstate/v1/*.proto
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$stubs" "$python" "$here/worker.py"
