// SPDX-License-Identifier: Apache-2.0
//! Upkeep of the flow table: garbage collection, and migrating flows that programs of an older build still add to
//! theirs.

use abi::maps::Flows;
use datapath::bpf::Migration;
use datapath::flows::{Collected, Collector, now};
use datapath::{Hooks, Map};
use statedb::Tasks;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use surface::{Families, Family, Surface};
use tokio::sync::watch;
use tracing::{info, warn};

/// The interval for a table with plenty of room.
const SELDOM: Duration = Duration::from_secs(30);
/// The interval for a table that may fill up, and for checking whether programs of an older build are left.
const OFTEN: Duration = Duration::from_secs(10);

/// Starts it and returns its metrics. The first round is when the agent is ready: by then most programs have been
/// replaced.
pub(crate) fn start(
    table: Map<Flows>,
    hooks: Arc<dyn Hooks>,
    mut ready: watch::Receiver<bool>,
    tasks: &Tasks,
) -> Surface {
    let capacity = table.capacity();
    let alive = Arc::new(AtomicUsize::new(0));
    let shown = metrics(Arc::clone(&alive), capacity);
    let mut upkeep = Upkeep { capacity, collector: Collector::new(table), hooks, alive, migrating: true, tight: false };
    tasks.spawn("collect-flows", async move {
        // An agent that never becomes ready still has flows.
        drop(tokio::time::timeout(SELDOM, ready.wait_for(|ready| *ready)).await);
        loop {
            let pause;
            (upkeep, pause) = statedb::blocking(move || {
                let pause = upkeep.round();
                (upkeep, pause)
            })
            .await;
            tokio::time::sleep(pause).await;
        }
    });
    shown
}

/// Flows counted by the last round, and the capacity.
pub(crate) fn metrics(alive: Arc<AtomicUsize>, capacity: u32) -> Surface {
    let read = move || {
        let alive = alive.load(Ordering::Relaxed) as u64;
        vec![
            Family::gauge("bpf_map_capacity", "Capacity of maps").with(&[("map_group", "ct")], u64::from(capacity)),
            Family::gauge("datapath_conntrack_gc_entries", "Flows after the last collection")
                .with(&[("family", "all")], alive),
        ]
    };
    Surface::new().metrics(|registry| registry.register_collector(Families::read(read)))
}

struct Upkeep {
    hooks: Arc<dyn Hooks>,
    collector: Collector,
    capacity: u32,
    alive: Arc<AtomicUsize>,
    migrating: bool,
    tight: bool,
}

impl Upkeep {
    /// Runs one round and returns the delay until the next.
    fn round(&mut self) -> Duration {
        if self.migrating {
            self.migrating = !self.finish_migration();
        }
        let collected = match self.collector.collect(now()) {
            Ok(collected) => collected,
            Err(error) => {
                warn!(%error, "cannot garbage-collect the flow table: new flows will be dropped once it is full");
                return OFTEN;
            }
        };
        self.alive.store(collected.alive, Ordering::Relaxed);
        self.report(collected.is_tight(self.capacity), collected);
        pause(&collected, self.capacity, self.migrating)
    }

    /// Whether nothing is left to do.
    fn finish_migration(&self) -> bool {
        match self.hooks.finish_migration() {
            Ok(Migration { flows, finished }) => {
                if flows > 0 {
                    info!(flows, "migrated flows from the programs of an older build");
                }
                finished
            }
            Err(error) => {
                warn!(%error, "cannot migrate flows added by the programs of an older build: their next packet is decided anew");
                false
            }
        }
    }

    /// Logs when the table becomes tight, and when it no longer is.
    fn report(&mut self, tight: bool, collected: Collected) {
        let Collected { alive, entries, .. } = collected;
        let capacity = self.capacity;
        match (self.tight, tight) {
            (false, true) => warn!(
                flows = alive,
                entries,
                capacity,
                "more than three quarters of the flow table are in use: flows are forgotten sooner than usual; \
                 bpf-map-dynamic-size-ratio makes a larger table, once the node has been restarted"
            ),
            (true, false) => info!(flows = alive, entries, capacity, "flow table no longer under pressure"),
            _ => {}
        }
        self.tight = tight;
    }
}

/// A half-full table may be full within half a minute.
fn pause(collected: &Collected, capacity: u32, migrating: bool) -> Duration {
    if migrating || collected.entries > capacity as usize / 2 { OFTEN } else { SELDOM }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_fills_up_and_one_that_is_being_taken_over_are_looked_at_more_often() {
        let used = |entries| Collected { entries, ..Collected::default() };
        assert_eq!(pause(&used(50), 100, false), SELDOM);
        assert_eq!(pause(&used(51), 100, false), OFTEN);
        assert_eq!(pause(&used(0), 100, true), OFTEN);
    }
}
