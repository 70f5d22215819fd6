#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the image into target/image/cilium.tar, an OCI archive named quay.io/cilium-rs/cilium:dev (or $IMAGE).
#
# PROFILE: the cargo profile of the binary (default `release`; `lab` builds in a fraction of the time and runs slower).
# A release's image larger than 30 MiB is refused each time, whether it was packed now or before; another one, which is not built to be
# small, if it is larger than 45 MiB.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${IMAGE:-quay.io/cilium-rs/cilium:dev}
profile=${PROFILE:-release}
target=x86_64-unknown-linux-gnu
out=target/image
names=(cilium cilium-agent cilium-certgen cilium-cni cilium-dbg cilium-envoy-starter cilium-health cilium-mount cilium-operator cilium-operator-generic cilium-proxy curl hubble hubble-relay hubble-ui loopback)

echo "building the pages of hubble-ui"
scripts/ui build

echo "building the static binary (profile $profile)"
# Statically linked, so that it runs on any node and from scratch.
CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile "$profile" --target "$target" --package cilium

rm -rf "$out/root"
mkdir -p "$out/root/usr/bin" "$out/root/tmp" "$out/root/etc"
binary=target/$target/$profile/cilium
install -m 0755 "$binary" "$out/root/usr/bin/cilium-rs"
for name in "${names[@]}"; do ln -s cilium-rs "$out/root/usr/bin/$name"; done
# For name resolution inside of the binary; Kubernetes mounts its own over them.
echo 'root:x:0:0:root:/:/usr/bin/cilium' >"$out/root/etc/passwd"

pack() {
    local storage=(--storage-driver vfs)
    buildah "${storage[@]}" bud --isolation chroot --layers=false --format oci --timestamp 0 -q -t "$image" -f deploy/images/Containerfile "$out" >/dev/null
    rm -f "$out/cilium.tar"
    buildah "${storage[@]}" push -q "$image" "oci-archive:$out/cilium.tar:$image"
    buildah "${storage[@]}" rmi -f "$image" >/dev/null
    cp "$binary" "$out/packed"
    echo "$image" >"$out/name"
}

if cmp -s "$binary" "$out/packed" && [ -f "$out/cilium.tar" ] && [ "$(cat "$out/name" 2>/dev/null)" = "$image" ]; then
    echo "image is up to date"
else
    echo "packing $image"
    pack
fi
size=$(stat -c %s "$out/cilium.tar")
echo "$out/cilium.tar: $((size / 1024 / 1024)) MiB"
case $profile in release) limit=30 ;; *) limit=45 ;; esac
[ "$size" -lt $((limit * 1024 * 1024)) ] || { echo "the image is larger than $limit MiB" >&2; exit 1; }
