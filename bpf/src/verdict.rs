// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What becomes of a packet.

use abi::DropReason;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on by the program.
    Sent,
    /// Goes on to the host's stack, or through the pod's device on which it is.
    Pass,
    /// None of ours: the next program, or the stack, has it.
    NotOurs,
    /// Taken: it was for us, and there is nothing to send on.
    Taken,
    /// Dropped.
    Drop(DropReason),
}

impl Verdict {
    /// As a number: a drop reason's code, or one below them all.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        match self {
            Self::Sent => 1,
            Self::Pass => 2,
            Self::NotOurs => 3,
            Self::Taken => 4,
            Self::Drop(reason) => reason.code() as u32,
        }
    }

    /// From such a number.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Sent,
            2 => Self::Pass,
            3 => Self::NotOurs,
            4 => Self::Taken,
            code => match DropReason::from_code(code as u8) {
                Some(reason) => Self::Drop(reason),
                None => Self::Drop(DropReason::InvalidTcBuffer),
            },
        }
    }
}

/// A stage either lets the packet go on to the next stage or ends its way.
pub type Stage = Result<(), Verdict>;

/// Ends the packet's way with a drop.
#[inline(always)]
pub fn drop<T>(reason: DropReason) -> Result<T, Verdict> {
    Err(Verdict::Drop(reason))
}
