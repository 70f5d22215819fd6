// SPDX-License-Identifier: Apache-2.0
//! Pods on this node: the CNI plugin, the endpoint API, attachment and restore.
