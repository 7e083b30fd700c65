#!/usr/bin/env bash
# The README's first sessions, as they stand there: every grpcurl line, then the Python program, against
# the fresh sidecar at PLUGIN_STATE_ADDRESS. PYTHON is an interpreter with requirements.txt installed.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
PATH=$(dirname "${PYTHON:-$(command -v python3)}"):$PATH

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R "$root/proto" "$copy/"
cd "$copy"

# blocks LANGUAGE: the content of the README's code blocks of that language.
blocks() {
  first_session | sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/d;p}"
}

# first_session: the README up to where it is about tokens and TLS, which this sidecar has not.
first_session() {
  sed '/^### With a token or TLS$/,$d' "$root/README.md"
}

# here: the sidecar of this check in the place of the README's.
here() {
  sed "s/127\.0\.0\.1:50051/$PLUGIN_STATE_ADDRESS/g"
}

# Lines that begin with $, and those that a backslash or an open quote continues.
commands() {
  awk -v quote="'" '
    !goes_on && !sub(/^\$ /, "") { next }
    { quotes += gsub(quote, quote); goes_on = /\\$/ || quotes % 2; print }'
}
blocks console | commands | here >session.sh
blocks sh | grep -F grpc_tools.protoc >generate.sh
blocks python | here >worker.py

calls=$(grep -c '^grpcurl' session.sh)
((calls > 8)) || { echo "only $calls grpcurl calls found in the README" >&2; exit 1; }
bash -euxo pipefail session.sh
bash -euxo pipefail generate.sh
python worker.py | tee printed
grep -q 'INVALID_ARGUMENT INVALID_VALUE' printed
echo "$((calls + 2)) checks passed"
