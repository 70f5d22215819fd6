// SPDX-License-Identifier: Apache-2.0
//! The whole feature through its front door: tables in, a kernel in memory, tables and map entries out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "tests"
)]

mod golden;
mod identities;
mod live;
mod pods;
mod support;
