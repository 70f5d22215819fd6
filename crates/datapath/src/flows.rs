// SPDX-License-Identifier: Apache-2.0
//! Garbage of the flow table: what has been silent for longer than its state allows. The table does not evict by itself: when it
//! grows full, flows are allowed less silence, those first that are closed or that nobody has answered.

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
    const fn exceeds(&self, sixteenths: usize, capacity: u32) -> bool {
        self.entries > capacity as usize / 16 * sixteenths
    }
}

/// How much silence is allowed.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// A flow's lifetime is divided by that.
    divisor: u32,
    /// Also that of established flows.
    with_established: bool,
}

const FULL: Patience = Patience { divisor: 1, with_established: true };

/// When more than so many sixteenths of the table are in use, this is what is allowed, one after the other.
const TIGHT: [(usize, Patience); 4] = [
    (12, Patience { divisor: 4, with_established: false }),
    (12, Patience { divisor: 4, with_established: true }),
    (15, Patience { divisor: 16, with_established: false }),
    (15, Patience { divisor: 16, with_established: true }),
];

impl Patience {
    /// Whether a flow has been silent for longer.
    fn has_ended(self, key: &FlowKey, flow: &Flow, now: u32) -> bool {
        let state = flow.state(key.proto);
        if self.divisor == 1 || (state == State::Established && !self.with_established) {
            return flow.is_garbage(key.proto, now);
        }
        let heard = flow.forward.last_seen.max(flow.reply.last_seen);
        now.saturating_sub(heard) > state.lifetime(key.proto) / self.divisor
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
        let mut collected = self.pass(FULL, now)?;
        collected.removed += orphans;
        for (sixteenths, patience) in TIGHT {
            if collected.exceeds(sixteenths, self.flows.capacity()) {
                let again = self.pass(patience, now)?;
                collected = Collected { removed: collected.removed + again.removed, ..again };
            }
        }
        Ok(collected)
    }

    fn pass(&mut self, patience: Patience, now: u32) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut suspects = Vec::new();
        self.flows.visit(|key, flow| {
            if key.alias != 0 {
                if self.is_due(key) && self.is_orphan(key, flow)? {
                    suspects.push(*key);
                }
            } else if patience.has_ended(key, flow, now) && self.remove_flow(key, patience, now)? {
                collected.removed += 1;
            } else {
                collected.alive += 1;
                collected.entries += 1 + usize::from(alias_of(key, flow).is_some());
            }
            Ok(())
        })?;
        self.suspects = suspects;
        Ok(collected)
    }

    /// Removes a flow and its alias, if it still is garbage: a packet may have come since it was read.
    fn remove_flow(&self, key: &FlowKey, patience: Patience, now: u32) -> Result<bool> {
        let Some(flow) = self.flows.get(key)?.filter(|flow| patience.has_ended(key, flow, now)) else {
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
