// SPDX-License-Identifier: Apache-2.0
//! Whether a Service has what it asks for, and if not, why not.

use std::fmt;

/// Why a Service has what it asks for or not, as in the condition's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It does.
    Satisfied,
    /// No pool serves it.
    NoPool,
    /// The pools that serve it are exhausted.
    OutOfIps,
    /// The pool of the address serves other Services.
    PoolSelectorMismatch,
    /// The address is in use by another Service, or reserved.
    AlreadyAllocated,
    /// The address is in use by another Service and cannot be shared with it.
    AlreadyAllocatedIncompatibleService,
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

/// A reason with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The first reason, if there are several.
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

    /// Whether it has everything.
    pub(crate) fn is_satisfied(&self) -> bool {
        self.reason == Reason::Satisfied
    }
}

pub(crate) fn refusal(reason: Reason, message: impl Into<String>) -> Verdict {
    Verdict { reason, message: message.into() }
}
