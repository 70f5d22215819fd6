// SPDX-License-Identifier: Apache-2.0
//! Tells authors of Services that this node has no room for them.

use super::holdings::Cause;
use super::{Frontend, Target};

impl Target {
    /// Notes that there is no room for a frontend, so that it is tried again when there is, and its author knows.
    pub(super) fn note(&mut self, row: &Frontend, cause: &Cause) {
        if let Cause::Kernel(datapath::Error::MapFull { map, .. }) = cause {
            self.shares.note_full(map);
        }
        if cause.is_lack() {
            self.teller.service(
                &row.service,
                "ServiceNotServed",
                &format!("does not serve all of {}: {cause}", row.key),
            );
        }
    }
}
