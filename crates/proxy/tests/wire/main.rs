// SPDX-License-Identifier: Apache-2.0
//! The whole proxy on loopback: an agent on its socket, backends, and clients that are what clients are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod attacks;
mod backend;
mod client;
mod disguised;
mod envoy;
mod explained;
mod floods;
mod framing;
mod hand_over;
mod heavy;
mod holding;
mod hostile;
mod http1;
mod http2;
mod loops;
mod mesh;
mod mirrors;
mod node_sockets;
mod objects;
mod observed;
mod policy;
mod silence;
mod streams;
mod timeouts;
mod tls;
mod withdrawn;
mod world;
