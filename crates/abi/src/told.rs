// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Which translations of sockets user space was told of lately. A socket that does the same again and again, such as one that sends
//! datagrams, is told of once in a while.

use crate::lb::{Connected, mix};

layout! {
    /// The last translation of those that share a slot.
    pub struct Told (16) {
        /// [`which`].
        pub which: u64,
        /// When user space was told, in [`crate::flow::TICK_NS`] ticks since boot.
        pub tick: u32,
        /// Zero.
        pub pad: u32,
    }
}

/// How many slots there are: a power of two.
pub const SLOTS: u32 = 4096;

/// A number of that translation of the socket with that cookie, at that point.
#[inline(always)]
#[must_use]
pub const fn which(cookie: u64, translation: &Connected, point: u8) -> u64 {
    let Connected { backend, frontend, backend_port, frontend_port, .. } = translation;
    let ends = backend.hi ^ backend.lo.rotate_left(17) ^ frontend.hi.rotate_left(29) ^ frontend.lo.rotate_left(43);
    let ports = (*backend_port as u64) << 24 | (*frontend_port as u64) << 8 | point as u64;
    cookie.rotate_left(32) ^ ends ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The slot of a translation.
#[inline(always)]
#[must_use]
pub const fn slot(which: u64) -> u32 {
    mix(which) % SLOTS
}

impl Told {
    /// Whether user space is to be told of that translation now: not if it was less than `interval` ticks ago.
    #[inline(always)]
    pub const fn admit(&mut self, which: u64, tick: u32, interval: u32) -> bool {
        if self.which == which && tick.wrapping_sub(self.tick) < interval {
            return false;
        }
        *self = Self { which, tick, pad: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{SLOTS, Told, slot, which};
    use crate::Addr;
    use crate::lb::Connected;
    use std::collections::BTreeSet;

    fn translation(frontend: u32) -> Connected {
        let [backend, frontend] = [1, frontend].map(|ip: u32| Addr::from_v4_be(ip.to_be()));
        Connected { backend, frontend, backend_port: 80, frontend_port: 81, service: 0 }
    }

    #[test]
    fn whoever_differs_in_anything_is_told_of() {
        let two = translation(2);
        let others = [
            which(7, &two, 1),
            which(8, &two, 1),
            which(7, &two, 3),
            which(7, &translation(3), 1),
            which(7, &Connected { backend: two.frontend, ..two }, 1),
            which(7, &Connected { backend_port: 81, ..two }, 1),
            which(7, &Connected { frontend_port: 80, ..two }, 1),
        ];
        assert_eq!(BTreeSet::from(others).len(), others.len());
        let slots: BTreeSet<u32> = (0..10_000).map(|cookie| slot(which(cookie, &two, 1))).collect();
        assert!(slots.len() > 3000 && slots.iter().all(|slot| *slot < SLOTS), "{}", slots.len());
    }

    #[test]
    fn the_same_is_told_of_once_in_a_while() {
        let mut told = Told::default();
        assert!(told.admit(7, 100, 5));
        assert!((100..105).all(|tick| !told.admit(7, tick, 5)));
        assert!(told.admit(7, 105, 5) && !told.admit(7, 106, 5));
        assert!(told.admit(8, 106, 5) && told.admit(7, 106, 5));
        // Without an interval, each time.
        assert!(told.admit(7, 106, 0) && told.admit(7, 106, 0));
    }
}
