// SPDX-License-Identifier: Apache-2.0
//! What becomes of a request at an API server that is unsteady.

use crate::chance::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whim {
    Serve,
    /// The connection breaks, or an open watch does.
    Drop,
    Hang,
    Fail(u16),
    /// A list or watch is told that its version is gone.
    Expire,
    /// A list is of an earlier version, where it may be.
    Lag,
    /// A write is done, and nobody hears of it.
    Lose,
}

impl Whim {
    /// Two thirds of all requests are served.
    pub(super) fn by(chance: &mut Chance) -> Self {
        match chance.below(60) {
            0..4 => Self::Drop,
            4..6 => Self::Hang,
            6..9 => Self::Fail(500),
            9..11 => Self::Fail(429),
            11 => Self::Fail(503),
            12 => Self::Fail(504),
            13..15 => Self::Expire,
            15..18 => Self::Lag,
            18..20 => Self::Lose,
            _ => Self::Serve,
        }
    }
}
