// SPDX-License-Identifier: Apache-2.0
//! Whether a Service has what it asks for, and if not, why.

use std::fmt;

/// Why a Service has, or has not, what it asks for; as the condition's `reason` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It has.
    Satisfied,
    /// No pool may give it an address.
    NoPool,
    /// The pools that may have none left.
    OutOfIps,
    /// The pool of the address is for other Services.
    PoolSelectorMismatch,
    /// The address is another Service's, or kept back.
    AlreadyAllocated,
    /// The address is another Service's, with which it cannot be shared.
    AlreadyAllocatedIncompatibleService,
    /// The request cannot be understood.
    InvalidRequest,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Satisfied => "satisfied",
            Self::NoPool => "no_pool",
            Self::OutOfIps => "out_of_ips",
            Self::PoolSelectorMismatch => "pool_selector_mismatch",
            Self::AlreadyAllocated => "already_allocated",
            Self::AlreadyAllocatedIncompatibleService => "already_allocated_incompatible_service",
            Self::InvalidRequest => "invalid_request",
        })
    }
}

/// A reason and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The reason; of several, the first.
    pub(crate) reason: Reason,
    /// Empty if it has what it asks for.
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn of(refusals: Vec<Self>) -> Self {
        let reason = refusals.first().map_or(Reason::Satisfied, |refusal| refusal.reason);
        let messages: Vec<String> = refusals.into_iter().map(|refusal| refusal.message).collect();
        Self { reason, message: messages.join("; ") }
    }

    /// Whether it has all.
    pub(crate) fn is_satisfied(&self) -> bool {
        self.reason == Reason::Satisfied
    }
}

pub(crate) fn refusal(reason: Reason, message: impl Into<String>) -> Verdict {
    Verdict { reason, message: message.into() }
}
