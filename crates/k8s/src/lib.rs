// SPDX-License-Identifier: Apache-2.0
//! The only Kubernetes client: Cilium's custom resources, reflectors, connection.
