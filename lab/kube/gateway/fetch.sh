#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Puts the definitions of Gateway API, of its experimental channel, which has all kinds and fields, into DIR/bin/gateway-api.yaml (default
# target/kube), in the version that go.mod pins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
out=${KUBE_DIR:-../../../target/kube}/bin/gateway-api.yaml

go mod download sigs.k8s.io/gateway-api
module=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
for file in "$module"/config/crd/experimental/gateway.networking.*.yaml; do
    printf -- '---\n'
    cat "$file"
done >"$out.new"
mv "$out.new" "$out"
