// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! How often the programs tell senders why their packets go no further (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): senders are divided among slots,
//! each of which has so many answers per tick. Whoever asks under many addresses is a burden to those that share their slots alone. Pods, which
//! have no choice of addresses, share none with who is outside.

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

/// The slot of a sender, who is a pod of this node or outside.
#[inline(always)]
#[must_use]
pub const fn slot(sender: Addr, is_pod: bool) -> u32 {
    spread(sender) % (SLOTS / 2) * 2 + is_pod as u32
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
    use super::{Answered, PER_TICK, SLOTS, slot};
    use crate::Addr;
    use std::collections::BTreeSet;

    #[test]
    fn who_is_outside_shares_no_slot_with_a_pod() {
        let all = (0..10_000u32).map(|n| Addr::from_v4_be(n.to_be()));
        let [pods, others] = [true, false].map(|is_pod| all.clone().map(move |addr| slot(addr, is_pod)).collect());
        let (pods, others): (BTreeSet<u32>, BTreeSet<u32>) = (pods, others);
        assert!(pods.is_disjoint(&others) && pods.union(&others).all(|slot| *slot < SLOTS));
        assert_eq!((pods.len(), others.len()), (128, 128));
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
