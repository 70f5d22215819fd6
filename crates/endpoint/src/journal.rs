// SPDX-License-Identifier: Apache-2.0
//! Recent state changes of each endpoint, for `GET /endpoint/{id}/log`.

use model::EndpointId;
use parking_lot::Mutex;
use rest::{EndpointState, EndpointStatusChange};
use std::collections::{BTreeMap, VecDeque};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Changes kept per endpoint.
const KEPT: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Journal {
    changes: Mutex<BTreeMap<EndpointId, VecDeque<EndpointStatusChange>>>,
}

impl Journal {
    pub(crate) fn note(&self, id: EndpointId, state: EndpointState, message: &str) {
        let timestamp = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let change = EndpointStatusChange { timestamp, code: "ok".into(), message: message.into(), state };
        let mut all = self.changes.lock();
        let changes = all.entry(id).or_default();
        if changes.len() == KEPT {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    pub(crate) fn forget(&self, id: EndpointId) {
        self.changes.lock().remove(&id);
    }

    /// The changes, latest first.
    pub(crate) fn of(&self, id: EndpointId) -> Vec<EndpointStatusChange> {
        self.changes.lock().get(&id).into_iter().flatten().rev().cloned().collect()
    }
}
