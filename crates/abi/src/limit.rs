// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! How often the programs tell senders why their packets go no further (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): senders are divided among slots,
//! each of which has so many answers per tick. Whoever asks under many addresses is a burden to those that share their slots alone.

use crate::Addr;
use crate::lb::spread;

layout! {
    /// The answers to the senders of a slot.
    pub struct Answered (8) {
        /// When the latest was asked for, in [`crate::flow::TICK_NS`] ticks since boot.
        pub tick: u32,
        /// How many were, in that tick.
        pub count: u32,
    }
}

/// How many slots there are.
pub const SLOTS: u32 = 256;
/// Answers per slot and tick.
pub const PER_TICK: u32 = 16;

/// The slot of a sender.
#[inline(always)]
#[must_use]
pub const fn slot(sender: Addr) -> u32 {
    spread(sender) % SLOTS
}

impl Answered {
    /// Counts one more at that tick. Whether it is to be sent.
    #[inline(always)]
    pub const fn admit(&mut self, tick: u32) -> bool {
        if self.tick != tick {
            *self = Self { tick, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= PER_TICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_spread_over_all_slots() {
        let slots: std::collections::BTreeSet<u32> = (0..4096).map(|lo| slot(Addr { hi: 0, lo })).collect();
        assert_eq!((slots.len(), slots.last()), (SLOTS as usize, Some(&(SLOTS - 1))));
    }

    #[test]
    fn so_many_are_sent_per_tick() {
        let mut answered = Answered::default();
        for tick in [7, 8] {
            assert!((0..PER_TICK).all(|_| answered.admit(tick)));
            assert!(!answered.admit(tick) && !answered.admit(tick));
        }
    }
}
