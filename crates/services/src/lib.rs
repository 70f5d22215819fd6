// SPDX-License-Identifier: Apache-2.0
//! The kube-proxy replacement: frontends, backends and their maps.
