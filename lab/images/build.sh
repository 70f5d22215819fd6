#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the lab's own container images as OCI archives into DIR/images (default target/kube/images), from what lab/kube/build.sh built and from the tools
# of the machine it runs on. No registry is asked for anything. An image whose sources have not changed is left alone.
#
#   lab/images/build.sh [pause|coredns|agnhost|boom|echo|echo-advanced ...]     without names: the first three; the others are for conformance suites
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kube=$(cd "${KUBE_DIR:-$here/../../target/kube}" && pwd)
mkdir -p "$kube/images" "$kube/stamps"

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
for tool in buildah gcc go; do
    command -v "$tool" >/dev/null || fail "the '$tool' command is missing: run scripts/bootstrap"
done
modules=$(cd "$here/../kube" && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
[ -n "$modules" ] || fail "the Kubernetes module is not in the module cache: run lab/kube/build.sh first"

work=$(mktemp -d "$kube/images/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT

buildah_() { buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"; }

# with_libraries ROOT PROGRAM...: puts each program, under its own path, and the shared libraries it needs into ROOT.
with_libraries() {
    local root=$1 program path library
    shift
    for program in "$@"; do
        path=$(command -v "$program") || fail "the '$program' command is missing: run scripts/bootstrap"
        install -D "$(readlink -f "$path")" "$root/usr/bin/$(basename "$program")"
        for library in $(ldd "$(readlink -f "$path")" | grep -o '/[^ ]*'); do
            [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
        done
    done
}

root_pause() { gcc -Os -static -DVERSION=3.10.2 -o "$1/pause" "$modules/build/pause/linux/pause.c"; }

root_coredns() { install "$kube/bin/coredns" "$1/coredns"; }

root_boom() { install "$kube/bin/regression-issue-74839" "$1/regression-issue-74839"; }

root_echo() { install "$kube/bin/echo-basic" "$1/echo-basic"; }

root_echo-advanced() {
    mkdir -p "$1/bin"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/bin/client" "$here/echo-advanced/main.go"
}

root_agnhost() {
    local root=$1 applet
    mkdir -p "$root"/{bin,sbin,etc,tmp,uploads,home,var,usr/bin,usr/sbin,usr/local/bin}
    chmod 1777 "$root/tmp"
    install "$kube/bin/agnhost" "$root/agnhost"
    install "$kube/bin/coredns" "$root/coredns"
    ln -s agnhost "$root/agnhost-2"
    install -m 644 "$modules"/test/images/agnhost/porter/localhost.{crt,key} "$root/"
    # The real curl, dig, nc, wget, getent and ss, and dash for a shell: busybox's shell would prefer its own nc, and its static wget crashes on names.
    with_libraries "$root" dash curl dig nc wget getent ss
    ln -s ../usr/bin/dash "$root/bin/sh"
    install "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ -e "$root/bin/$applet" ] || [ -L "$root/bin/$applet" ] || [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
    done
    printf '%s\n' root:x:0:0:root:/:/bin/sh nobody:x:65534:65534:nobody:/:/bin/false \
        user-defined-in-image:x:1000:1000::/home:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: nogroup:x:65534: user-defined-in-image:x:1000: \
        group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
}

# image NAME REFERENCE...: builds NAME's archive with every one of the references it is known by.
image() {
    local name=$1 root="$work/$1/root" want begin=$SECONDS archive="$kube/images/$1.tar" reference
    shift
    mkdir -p "$root"
    cp "$here/$name/Containerfile" "$work/$name/"
    "root_$name" "$root"
    want=$({ cat "$here/build.sh" "$here/$name/Containerfile"; tar -C "$root" --sort=name --mtime=@0 -cf - .; } | sha256sum | cut -d' ' -f1)
    if [ -e "$archive" ] && [ "$(cat "$kube/stamps/image-$name" 2>/dev/null)" = "$want" ]; then
        say "  image $name: up to date"
        return
    fi
    # Layers stay uncompressed: they never leave the machine, and every node unpacks them.
    buildah_ bud --quiet --isolation chroot --timestamp 0 --tag "$name" "$work/$name" >/dev/null
    rm -f "$archive.new"
    buildah_ push --quiet --disable-compression "$name" "oci-archive:$archive.new:$1"
    mv "$archive.new" "$archive"
    # `lab load` gives the image its other names: an archive holds but one.
    printf '%s\n' "$@" >"$archive.names"
    printf '%s\n' "$want" >"$kube/stamps/image-$name"
    say "  image $name: built in $((SECONDS - begin)) s, $(du -m "$archive" | cut -f1) MB"
}

[ $# -gt 0 ] || set -- pause coredns agnhost
for name in "$@"; do
    case $name in
        pause) image pause registry.k8s.io/pause:3.10.2 ;;
        coredns) image coredns registry.k8s.io/coredns/coredns:v1.14.1 registry.k8s.io/coredns/coredns:v1.12.2 ;;
        agnhost) image agnhost registry.k8s.io/e2e-test-images/agnhost:2.63.0 \
            registry.k8s.io/e2e-test-images/busybox:1.36.1-1 registry.k8s.io/e2e-test-images/busybox:1.37.0-1 \
            registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0 ;;
        boom) image boom registry.k8s.io/e2e-test-images/regression-issue-74839:1.4 ;;
        echo) image echo registry.k8s.io/gateway-api/echo-basic:v1.5.1 \
            registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.2 registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3 ;;
        echo-advanced) image echo-advanced registry.k8s.io/gateway-api/echo-advanced:v1.5.1 ;;
        *) fail "unknown image '$name': choose among pause coredns agnhost boom echo echo-advanced" ;;
    esac
done
