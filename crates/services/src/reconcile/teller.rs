// SPDX-License-Identifier: Apache-2.0
//! Tells authors of Services that this node has no room for them.

use super::holdings::Cause;
use super::{Frontend, Target};
use crate::ingest::Service;
use crate::problems;
use k8s::{Warning, Warnings};
use statedb::Reader;
use std::sync::Arc;

/// Knows whom to tell.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) services: Reader<Service>,
    pub(crate) node: Arc<str>,
    pub(crate) warnings: Warnings,
}

impl Teller {
    fn tell(&self, row: &Frontend, cause: &Cause) {
        // What pods ask of their node, and policies, are no Services.
        let Some(service) = self.services.snapshot().get(&row.service) else { return };
        self.warnings.warn(Warning {
            about: problems::reference(&service.name, &service.uid),
            reason: "ServiceNotServed",
            action: "Serve",
            note: format!("Node {} does not serve all of {}: {cause}", self.node, row.key),
        });
    }
}

impl Target {
    /// Notes that there is no room for a frontend, so that it is tried again when there is, and its author knows.
    pub(super) fn note(&mut self, row: &Frontend, cause: &Cause) {
        if let Cause::Kernel(datapath::Error::MapFull { map, .. }) = cause {
            self.shares.note_full(map);
        }
        if cause.is_lack() {
            self.teller.tell(row, cause);
        }
    }
}
