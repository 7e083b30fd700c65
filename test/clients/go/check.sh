#!/usr/bin/env bash
# Generates Go stubs from proto/ and runs main.go against the sidecar at PLUGIN_STATE_ADDRESS. Needs go
# (1.25), protoc-gen-go and protoc-gen-go-grpc on the path, and buf from node_modules.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp "$here"/{go.mod,go.sum,main.go,buf.gen.yaml} "$copy/"
cd "$copy"
"$root/node_modules/.bin/buf" generate "$root/proto" --template buf.gen.yaml
go vet .
go run .
