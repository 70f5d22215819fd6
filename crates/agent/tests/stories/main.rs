// SPDX-License-Identifier: Apache-2.0
//! Stories: the whole agent, as `agent::build` wires it, on a kernel and an API server in memory. Objects and requests go in; what is
//! asserted is what the maps, the interfaces and the API server hold in the end. Nothing here needs root, and the clock is paused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod announcements;
mod apiserver;
mod chance;
mod churn;
mod cluster;
mod envoy;
mod faults;
mod moods;
mod pods;
mod restarts;
mod services;
mod world;
