#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the parts of a Kubernetes cluster into DIR/bin (default target/kube/bin), from the versions that go.mod beside this script pins. All are of
# one module, so that what they have in common is compiled once.
# A part whose pins have not changed since it was last built is left alone, so a second run takes no time.
#
#   lab/kube/build.sh [cluster|e2e|gateway ...]     without names: cluster
#
# Environment: KUBE_DIR (where to build to), KUBE_JOBS (parallel compilations, default 2).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${KUBE_DIR:-$here/../../target/kube}
version=v1.36.3
mkdir -p "$out/bin" "$out/stamps" "$out/images"
out=$(cd "$out" && pwd)
export GOFLAGS="-p=${KUBE_JOBS:-2} -trimpath -buildvcs=false"
export CGO_ENABLED=0
# Compilers and linkers live for seconds: collecting their garbage costs a fifth of the time, unless memory gets scarce.
export GOGC=off GOMEMLIMIT=2GiB

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

command -v go >/dev/null || fail "the 'go' command is missing: run scripts/bootstrap, or install Go 1.26 or newer"

# stamp FOLDER: what a part was built from.
stamp() {
    { go env GOVERSION; cat "$here/build.sh" "$here/$1/go.mod" "$here/$1/go.sum"; [ "$1" != . ] || cat "$here/main.go" "$here/coredns/main.go"; } | sha256sum | cut -d' ' -f1
}

# part NAME FOLDER FILE COMMAND...: runs COMMAND in FOLDER unless FILE was built from the same pins, and shows how long it takes.
part() {
    local name=$1 folder=$2 file=$3 want begin=$SECONDS log="$out/stamps/$1.log" pid
    shift 3
    want=$(stamp "$folder")
    if [ -e "$out/bin/$file" ] && [ "$(cat "$out/stamps/$name" 2>/dev/null)" = "$want" ]; then
        say "  $name: up to date"
        return
    fi
    (cd "$here/$folder" && "$@") >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        [ ! -t 2 ] || printf '\r  %s: building, %d s ' "$name" $((SECONDS - begin)) >&2
        sleep 0.2
    done
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        fail "$name did not build; the whole log is $log"
    fi
    printf '%s\n' "$want" >"$out/stamps/$name"
    say "  $name: built in $((SECONDS - begin)) s"
}

# Clients refuse or warn about a server that says it is v0.0.0-master, which is what an unstamped build says.
kube_flags() {
    local flags="-s -w" package minor=${version#v1.}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
    done
    printf '%s' "$flags"
}

# containerd's CRI plugin and runc shim need no cgo here; btrfs and zfs snapshotters would.
build_cluster() {
    part cluster . kube go build -tags no_btrfs,no_zfs,no_devmapper -ldflags "$(kube_flags)" -o "$out/bin/" . ./coredns \
        github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} helm.sh/helm/v4/cmd/helm k8s.io/kubernetes/test/images/agnhost
    local name
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        ln -sfn kube "$out/bin/$name"
    done
}
build_e2e() {
    part e2e . e2e.test go test -c -ldflags "$(kube_flags)" -o "$out/bin/e2e.test" k8s.io/kubernetes/test/e2e
    part boom . regression-issue-74839 go build -ldflags "-s -w" -o "$out/bin/" k8s.io/kubernetes/test/images/regression-issue-74839
    part ginkgo . ginkgo go build -ldflags "-s -w" -o "$out/bin/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
}
# Gateway API's suite, and the server that it asks.
build_gateway() {
    part gateway gateway gateway.test go test -c -ldflags "-s -w" -o "$out/bin/gateway.test" sigs.k8s.io/gateway-api/conformance
    part echo gateway echo-basic go build -ldflags "-s -w" -o "$out/bin/" tool
}

[ $# -gt 0 ] || set -- cluster
say "Kubernetes $version and its companions, into $out/bin (the first time takes about ten minutes on two cores)"
for name in "$@"; do
    case $name in
        cluster | e2e | gateway) "build_$name" ;;
        *) fail "unknown part '$name': choose among cluster, e2e and gateway" ;;
    esac
done
