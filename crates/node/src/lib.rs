// SPDX-License-Identifier: Apache-2.0
//! The wire between nodes: discovery, routes, tunnels.
