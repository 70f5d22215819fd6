// SPDX-License-Identifier: Apache-2.0
//! Keeps the programs answering for what is announced.

use crate::announcement::{Announcement, AnnouncementKey};
use abi::l2::{Announced, AnnouncedKey};
use abi::maps;
use datapath::{Kernel, Map, Result, Wire};
use statedb::Snapshot;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Target {
    map: Map<maps::Announced>,
    wire: Arc<dyn Wire>,
}

impl Target {
    pub(crate) fn new(kernel: &Arc<dyn Kernel>, wire: Arc<dyn Wire>) -> Result<Self> {
        Ok(Self { map: kernel.map()?, wire })
    }
}

impl statedb::Target<Announcement> for Target {
    type Error = datapath::Error;

    async fn update(&mut self, row: &Announcement) -> Result<()> {
        self.wire.listen(row.ifindex, row.address)?;
        self.map.insert(&key(&(row.address, row.ifindex)), &value(row))
    }

    async fn delete(&mut self, row: &AnnouncementKey) -> Result<()> {
        self.map.remove(&key(row))?;
        self.wire.ignore(row.1, row.0)
    }

    /// Leave what an earlier process announced to expire: this one holds the same Lease, and may be about to renew it.
    async fn prune(&mut self, desired: &Snapshot<Announcement>) -> Result<()> {
        let now = nanoseconds(self.wire.since_boot());
        for (key, announced) in self.map.entries()? {
            if announced.until <= now && desired.get(&(key.addr.into(), key.ifindex)).is_none() {
                self.map.remove(&key)?;
            }
        }
        Ok(())
    }
}

fn key((address, ifindex): &AnnouncementKey) -> AnnouncedKey {
    AnnouncedKey::new((*address).into(), *ifindex)
}

fn value(row: &Announcement) -> Announced {
    Announced { mac: row.mac.0, pad: [0; 2], until: nanoseconds(row.until) }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
