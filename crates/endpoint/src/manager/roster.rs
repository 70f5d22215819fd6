// SPDX-License-Identifier: Apache-2.0
//! Which endpoints exist, which are being added, and which ids are not free yet. An attachment and an address belong to
//! one endpoint from the moment it is admitted here, even before its state is on disk.

use super::{CreateError, has_address};
use crate::addresses::AddressError;
use crate::ids;
use crate::reference::AttachmentId;
use model::{Endpoint, EndpointId};
use parking_lot::Mutex;
use statedb::Writer;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The table of endpoints, plus those not yet in it or not quite gone.
pub(super) struct Roster {
    writer: Writer<Endpoint>,
    joining: Vec<Endpoint>,
    /// Their state is still on disk.
    leaving: BTreeSet<EndpointId>,
    /// The kernel has them, and whose they are is to be found out.
    orphans: BTreeSet<EndpointId>,
}

impl Roster {
    pub(super) fn new(writer: Writer<Endpoint>) -> Self {
        Self { writer, joining: Vec::new(), leaving: BTreeSet::new(), orphans: BTreeSet::new() }
    }

    /// Starts with these. The table is not complete: there may be orphans.
    pub(super) fn begin(&mut self, endpoints: Vec<Endpoint>, orphans: BTreeSet<EndpointId>) {
        for endpoint in endpoints {
            self.writer.insert(endpoint);
        }
        self.writer.commit();
        self.orphans = orphans;
    }

    /// Adds the orphans whose pods are known, and marks the table as complete.
    pub(super) fn complete(&mut self, recovered: Vec<Endpoint>) {
        for endpoint in recovered {
            self.writer.insert(endpoint);
        }
        self.orphans.clear();
        self.writer.mark_initialized();
    }

    /// The endpoint that has an address, or will have.
    pub(super) fn user(&self, ip: IpAddr) -> Option<EndpointId> {
        self.find(|endpoint| has_address(endpoint, ip)).map(|endpoint| endpoint.id)
    }

    /// Removes all that meet a condition. Their ids stay taken until [`left`](Self::left).
    pub(super) fn take_out(&mut self, chosen: impl Fn(&Endpoint) -> bool) -> Vec<Arc<Endpoint>> {
        let removed: Vec<_> = self.writer.snapshot().iter().filter(|e| chosen(e)).cloned().collect();
        for endpoint in &removed {
            self.writer.remove(&endpoint.id);
            self.leaving.insert(endpoint.id);
        }
        self.writer.commit();
        removed
    }

    /// Nothing of these is left on disk.
    pub(super) fn left(&mut self, endpoints: &[Arc<Endpoint>]) {
        for endpoint in endpoints {
            self.leaving.remove(&endpoint.id);
        }
    }

    /// Ids that are not free.
    pub(super) fn taken(&self) -> BTreeSet<EndpointId> {
        let present = self.writer.snapshot();
        let in_use = present.iter().map(|endpoint| endpoint.id).chain(self.joining.iter().map(|endpoint| endpoint.id));
        in_use.chain(self.leaving.iter().chain(&self.orphans).copied()).collect()
    }

    fn find(&self, condition: impl Fn(&Endpoint) -> bool) -> Option<Endpoint> {
        let present = self.writer.snapshot();
        let in_table = present.iter().find(|e| condition(e)).map(|endpoint| Endpoint::clone(endpoint));
        in_table.or_else(|| self.joining.iter().find(|e| condition(e)).cloned())
    }

    fn reserve(&mut self, draft: Endpoint) -> Result<Endpoint, CreateError> {
        let same = |e: &Endpoint| e.container_id == draft.container_id && e.interface == draft.interface;
        if let Some(same) = self.find(same) {
            let attachment = AttachmentId { container_id: draft.container_id, interface: draft.interface };
            return Err(CreateError::Exists { id: same.id, attachment });
        }
        for ip in draft.addresses() {
            if let Some(other) = self.find(|e| has_address(e, ip)) {
                return Err(AddressError::Taken { ip, owner: other.owner() }.into());
            }
        }
        let id = ids::allocate(&self.taken(), &mut rand::rng()).ok_or(CreateError::NoId)?;
        let endpoint = Endpoint { id, ..draft };
        self.joining.push(endpoint.clone());
        Ok(endpoint)
    }
}

/// An endpoint with an id that is not in the table yet. Dropping it frees what it reserved.
pub(super) struct Joining<'a> {
    roster: &'a Mutex<Roster>,
    endpoint: Endpoint,
}

impl<'a> Joining<'a> {
    /// Assigns an id to a draft, unless its attachment or an address belongs to another.
    pub(super) fn reserve(roster: &'a Mutex<Roster>, draft: Endpoint) -> Result<Self, CreateError> {
        let endpoint = roster.lock().reserve(draft)?;
        Ok(Self { roster, endpoint })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Inserts it into the table.
    pub(super) fn admit(self) -> Endpoint {
        let mut roster = self.roster.lock();
        roster.writer.insert(self.endpoint.clone());
        roster.writer.commit();
        self.endpoint.clone()
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.roster.lock().joining.retain(|endpoint| endpoint.id != self.endpoint.id);
    }
}
