// SPDX-License-Identifier: Apache-2.0
//! What holds on the real kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod attach;
mod budget;
mod closing;
mod events;
mod flows;
mod links;
mod load;
mod migrate;
mod netlink;
mod older;
mod run_time;
mod sandbox;
mod sockets;
mod xdp;
