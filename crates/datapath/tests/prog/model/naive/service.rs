// SPDX-License-Identifier: Apache-2.0
//! A service, as its maps describe it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use abi::lb::flags;

use super::super::talk::End;

/// A service at one of its frontends.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) id: u32,
    /// Bits of `abi::lb::flags`.
    pub(crate) flags: u32,
    pub(crate) affinity: bool,
    /// Clients that source ranges list, to be let in and to be refused.
    pub(crate) admitted: BTreeSet<IpAddr>,
    pub(crate) denied: BTreeSet<IpAddr>,
    /// By their ids.
    pub(crate) backends: Vec<(u32, End)>,
}

impl Service {
    pub(crate) fn new(id: u32, flags: u32) -> Self {
        Self { id, flags, affinity: false, admitted: BTreeSet::new(), denied: BTreeSet::new(), backends: Vec::new() }
    }

    pub(crate) fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        self.backends.iter().any(|(backend, _)| *backend == id)
    }

    /// Whether source ranges let a client in.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        match (self.is(flags::SOURCE_RANGES), self.is(flags::DENY_RANGES)) {
            (false, _) => true,
            (true, false) => self.admitted.contains(&client),
            (true, true) => !self.denied.contains(&client),
        }
    }
}

/// By which service a flow was led, and to which backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) service: u32,
    pub(crate) backend: u32,
}
