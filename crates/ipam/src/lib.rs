// SPDX-License-Identifier: Apache-2.0
//! Pod addresses: pools on the node, pod CIDRs for nodes.
