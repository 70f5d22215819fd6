// SPDX-License-Identifier: Apache-2.0
//! Real Kubernetes in network namespaces.
