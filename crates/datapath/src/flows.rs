// SPDX-License-Identifier: Apache-2.0
//! Garbage of the flow table: what has been silent for longer than its state allows. The table evicts by itself when it is
//! full, so this is for tidiness and for what users see, and may be late.

use crate::{Map, Result};
use abi::flow::{FlowEntry, FlowKey, TICK_SHIFT, lifetime, opposite};
use abi::maps::Flows;
use std::collections::HashMap;

/// Ticks since boot, by the clock that the programs read.
#[must_use]
pub fn now() -> u32 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    let nanoseconds = time.map_or(0, |t| t.as_nanos());
    u32::try_from(nanoseconds >> TICK_SHIFT).unwrap_or(u32::MAX)
}

/// What a collection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries that stay.
    pub alive: usize,
    /// Entries that were removed.
    pub removed: usize,
}

/// Removes flows of which both directions are silent for too long.
///
/// # Errors
///
/// The table cannot be read, or an entry cannot be removed.
pub fn collect(flows: &Map<Flows>, now: u32) -> Result<Collected> {
    let all: HashMap<FlowKey, FlowEntry> = flows.entries()?.into_iter().collect();
    let mut collected = Collected::default();
    for (key, entry) in &all {
        // One side may be silent for good, as with a stream of datagrams: the pair lives as long as either does.
        let other = all.get(&opposite(key, entry));
        if is_silent(key, entry, now) && other.is_none_or(|other| is_silent(key, other, now)) {
            collected.removed += usize::from(flows.remove(key)?);
        } else {
            collected.alive += 1;
        }
    }
    Ok(collected)
}

fn is_silent(key: &FlowKey, entry: &FlowEntry, now: u32) -> bool {
    now.saturating_sub(entry.last_seen) > lifetime(key.proto, entry.flags)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake;
    use abi::Addr;
    use abi::flow::{ARRIVING, FROM_POD, action, flags, proto};

    fn pair(proto: u8) -> (FlowKey, FlowKey) {
        let (src, dst) = (Addr { hi: 0, lo: 1 }, Addr { hi: 0, lo: 2 });
        let key = FlowKey { src, dst, sport: 1, dport: 2, proto, hook: FROM_POD, pad: 0 };
        (key, key.reversed(ARRIVING))
    }

    fn entry(last_seen: u32, flags: u8) -> FlowEntry {
        FlowEntry { last_seen, flags, action: action::NEIGH, ..FlowEntry::default() }
    }

    #[test]
    fn a_flow_lives_as_long_as_either_direction_is_heard() {
        let kernel = fake::Kernel::new();
        let flows: Map<Flows> = kernel.map().unwrap();
        let (key, reply) = pair(proto::UDP);
        flows.insert(&key, &entry(1000, 0)).unwrap();
        flows.insert(&reply, &entry(10, flags::REPLY)).unwrap();
        assert_eq!(collect(&flows, 1030).unwrap(), Collected { alive: 2, removed: 0 });
        assert_eq!(collect(&flows, 1061).unwrap(), Collected { alive: 0, removed: 2 });
    }

    #[test]
    fn an_established_connection_outlives_one_that_closes() {
        let kernel = fake::Kernel::new();
        let flows: Map<Flows> = kernel.map().unwrap();
        let (key, reply) = pair(proto::TCP);
        flows.insert(&key, &entry(1000, flags::ESTABLISHED)).unwrap();
        flows.insert(&reply, &entry(1000, flags::REPLY | flags::ESTABLISHED)).unwrap();
        assert_eq!(collect(&flows, 8000).unwrap().removed, 0);
        flows.insert(&key, &entry(1000, flags::ESTABLISHED | flags::CLOSING)).unwrap();
        flows.insert(&reply, &entry(1000, flags::REPLY | flags::CLOSING)).unwrap();
        assert_eq!(collect(&flows, 1011).unwrap().removed, 2);
    }
}
