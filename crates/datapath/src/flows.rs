// SPDX-License-Identifier: Apache-2.0
//! Garbage of the flow table: what has been silent for longer than its state allows. The table does not evict by itself: when it
//! grows full, flows are allowed less silence, those first that are closed or that nobody has answered, and then those of the
//! endpoints that hold more than their share of the table.

use crate::{Map, Result};
use abi::flow::{Flow, FlowKey, State, TICK_SHIFT};
use abi::maps::Flows;
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
    /// Flows that stay.
    pub alive: usize,
    /// Flows that were removed, and aliases that belonged to none.
    pub removed: usize,
    /// What these flows take of the table: each an entry, and another for the replies of one that is translated.
    pub entries: usize,
}

impl Collected {
    /// Whether so much of the table is in use that flows are allowed less silence.
    #[must_use]
    pub const fn is_tight(&self, capacity: u32) -> bool {
        self.exceeds(12, capacity)
    }

    /// Whether more than so many sixteenths of the table are in use.
    const fn exceeds(&self, sixteenths: u32, capacity: u32) -> bool {
        self.entries > (capacity / 16 * sixteenths) as usize
    }
}

/// How much silence is allowed.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// A flow's lifetime is divided by that.
    divisor: u32,
    /// Also that of established flows, if their endpoint holds more than its share.
    with_established: bool,
}

const FULL: Patience = Patience { divisor: 1, with_established: false };

/// When more than so many sixteenths of the table are in use, this is what is allowed, one after the other.
const TIGHT: [(u32, Patience); 4] = [
    (12, Patience { divisor: 4, with_established: false }),
    (12, Patience { divisor: 4, with_established: true }),
    (15, Patience { divisor: 16, with_established: false }),
    (15, Patience { divisor: 16, with_established: true }),
];

impl Patience {
    /// Whether a flow has been silent for longer.
    fn has_ended(self, key: &FlowKey, flow: &Flow, now: u32, shares: &Shares) -> bool {
        let state = flow.state(key.proto);
        let is_spared = state == State::Established && !(self.with_established && shares.exceeded_by(holder_of(flow)));
        if self.divisor == 1 || is_spared {
            return flow.is_garbage(key.proto, now);
        }
        let heard = flow.forward.last_seen.max(flow.reply.last_seen);
        now.saturating_sub(heard) > flow.lifetime(key.proto) / self.divisor
    }
}

/// The endpoint whose part of the table a flow takes: the local one that opened it, or else the one that it was opened to; 0 for what
/// the node forwards.
const fn holder_of(flow: &Flow) -> u16 {
    if flow.src_endpoint != 0 { flow.src_endpoint } else { flow.dst_endpoint }
}

/// How many entries each endpoint holds, and how many it may hold while the table is tight.
#[derive(Debug)]
struct Shares {
    /// By endpoint. An array, since each flow is counted.
    held: Vec<u32>,
    fair: u32,
}

impl Shares {
    fn new() -> Self {
        Self { held: vec![0; usize::from(u16::MAX) + 1], fair: u32::MAX }
    }

    fn count(&mut self, holder: u16, entries: u32) {
        if let Some(held) = self.held.get_mut(usize::from(holder)) {
            *held += entries;
        }
    }

    /// Divides so many entries: who holds little keeps it, and what is left is divided equally among the others.
    fn divide(&mut self, entries: u32) {
        let mut held: Vec<u32> = self.held.iter().copied().filter(|held| *held > 0).collect();
        held.sort_unstable();
        let mut left = entries;
        let mut sharers = u32::try_from(held.len()).unwrap_or(u32::MAX);
        self.fair = u32::MAX;
        for count in held {
            let equal = left / sharers;
            if count > equal {
                self.fair = equal;
                return;
            }
            left -= count;
            sharers -= 1;
        }
    }

    fn exceeded_by(&self, holder: u16) -> bool {
        self.held.get(usize::from(holder)).is_some_and(|held| *held > self.fair)
    }
}

/// Tidies the flow table, again and again.
#[derive(Debug)]
pub struct Collector {
    flows: Map<Flows>,
    round: u32,
    /// Aliases that were without a record. A program may have been about to make it, so they are asked about once more.
    suspects: Vec<FlowKey>,
}

/// Each round asks for the records of that share of the aliases: one without is rare, and no harm.
const ALIAS_SHARE: u32 = 16;

impl Collector {
    /// For that table.
    #[must_use]
    pub fn new(flows: Map<Flows>) -> Self {
        Self { flows, round: 0, suspects: Vec::new() }
    }

    /// Removes flows of which both directions are silent for too long.
    ///
    /// # Errors
    ///
    /// The table cannot be read, or an entry cannot be removed.
    pub fn collect(&mut self, now: u32) -> Result<Collected> {
        self.round = (self.round + 1) % ALIAS_SHARE;
        let orphans = self.remove_orphans()?;
        let (mut collected, mut shares) = self.pass(FULL, now, &Shares::new())?;
        collected.removed += orphans;
        let capacity = self.flows.capacity();
        for (sixteenths, patience) in TIGHT {
            if collected.exceeds(sixteenths, capacity) {
                shares.divide(capacity / 16 * sixteenths);
                let again;
                (again, shares) = self.pass(patience, now, &shares)?;
                collected = Collected { removed: collected.removed + again.removed, ..again };
            }
        }
        Ok(collected)
    }

    /// Returns also what each endpoint holds afterwards.
    fn pass(&mut self, patience: Patience, now: u32, shares: &Shares) -> Result<(Collected, Shares)> {
        let mut collected = Collected::default();
        let mut left = Shares::new();
        let mut suspects = Vec::new();
        self.flows.visit(|key, flow| {
            if key.alias != 0 {
                if self.is_due(key) && self.is_orphan(key, flow)? {
                    suspects.push(*key);
                }
                return Ok(());
            }
            let has_ended = |flow: &Flow| patience.has_ended(key, flow, now, shares);
            if has_ended(flow) && self.remove_flow(key, has_ended)? {
                collected.removed += 1;
            } else {
                let entries = 1 + u32::from(alias_of(key, flow).is_some());
                collected.alive += 1;
                collected.entries += entries as usize;
                left.count(holder_of(flow), entries);
            }
            Ok(())
        })?;
        self.suspects = suspects;
        Ok((collected, left))
    }

    /// Removes a flow and its alias, if it still is garbage: a packet may have come since it was read.
    fn remove_flow(&self, key: &FlowKey, has_ended: impl Fn(&Flow) -> bool) -> Result<bool> {
        let Some(flow) = self.flows.get(key)?.filter(has_ended) else {
            return Ok(false);
        };
        if let Some(alias_key) = alias_of(key, &flow)
            && self.flows.get(&alias_key)?.is_some_and(|alias| alias.target(&alias_key) == *key)
        {
            self.flows.remove(&alias_key)?;
        }
        self.flows.remove(key)
    }

    /// Whether it is an alias's turn to be looked after.
    fn is_due(&self, alias: &FlowKey) -> bool {
        alias.tag() % ALIAS_SHARE == self.round
    }

    /// Whether the record of an alias has gone, or has another.
    fn is_orphan(&self, key: &FlowKey, alias: &Flow) -> Result<bool> {
        let target = alias.target(key);
        let record = self.flows.get(&target)?;
        Ok(record.and_then(|record| alias_of(&target, &record)).as_ref() != Some(key))
    }

    /// Removes the suspects that still are without a record.
    fn remove_orphans(&mut self) -> Result<usize> {
        let mut removed = 0;
        for key in std::mem::take(&mut self.suspects) {
            if let Some(alias) = self.flows.get(&key)?
                && self.is_orphan(&key, &alias)?
            {
                removed += usize::from(self.flows.remove(&key)?);
            }
        }
        Ok(removed)
    }
}

/// The key of a record's alias. What is translated into itself has none.
fn alias_of(key: &FlowKey, flow: &Flow) -> Option<FlowKey> {
    if !flow.is_translated() {
        return None;
    }
    let answer = flow.answer(key);
    (answer.key().0 != *key).then(|| Flow::alias(key, &answer).0)
}

#[cfg(test)]
mod tests;
