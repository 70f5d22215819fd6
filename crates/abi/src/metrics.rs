// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Packet counters by reason and direction.
//!
//! An array rather than a hash: the kernel inlines the lookup, so counting costs a packet next to nothing.

layout! {
    /// The counters of one processor.
    pub struct MetricsValue (16) {
        /// Packets.
        pub packets: u64,
        /// Bytes, from the network header on.
        pub bytes: u64,
    }
}

/// Slot of a reason (0: forwarded, else a drop reason code) and a direction (`policy::INGRESS`, `policy::EGRESS`, 0 unknown).
#[inline(always)]
#[must_use]
pub const fn slot(reason: u8, direction: u8) -> u32 {
    ((reason as u32) << 2) | (direction & 3) as u32
}

/// Reason and direction of a slot.
#[must_use]
pub const fn reason_and_direction(slot: u32) -> (u8, u8) {
    ((slot >> 2) as u8, (slot & 3) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_direction_has_a_slot_of_its_own() {
        for reason in 0..=u8::MAX {
            for direction in 0..3 {
                let slot = slot(reason, direction);
                assert!(slot < 1024);
                assert_eq!(reason_and_direction(slot), (reason, direction));
            }
        }
    }
}
