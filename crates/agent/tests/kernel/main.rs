// SPDX-License-Identifier: Apache-2.0
//! The agent of the stories on maps of the real kernel. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "the stories use the rest")]

#[path = "../stories/apiserver.rs"]
mod apiserver;
#[path = "../stories/chance.rs"]
mod chance;
#[path = "../stories/churn.rs"]
mod churn;
#[path = "../../../datapath/tests/kernel/sandbox.rs"]
mod sandbox;
#[path = "../stories/world.rs"]
mod world;

use datapath::bpf::Options;
use sandbox::Sandbox;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::World;

/// `CILIUM_CHURN_SECONDS` says for how long, `CILIUM_CHURN_SEED` with which changes.
#[test]
#[allow(clippy::disallowed_methods, reason = "the clock of the story stands still")]
fn after_every_change_the_kernels_maps_hold_what_a_naive_reading_of_all_objects_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let time = Duration::from_secs(number("CILIUM_CHURN_SECONDS").unwrap_or(60));
    let seed = number("CILIUM_CHURN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("CILIUM_CHURN_SEED={seed}");
    Sandbox::run(move |sandbox| {
        let maps = Arc::new(sandbox.load_with(Options { flows: 1024, ..Options::default() }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (began, changes) = (Instant::now(), std::cell::Cell::new(0));
        runtime.block_on(async {
            let goes_on = |change| {
                changes.set(change);
                began.elapsed() < time
            };
            churn::at_random(World::with_maps(maps).await, seed, goes_on).await;
        });
        println!("{} changes", changes.get());
    });
}
