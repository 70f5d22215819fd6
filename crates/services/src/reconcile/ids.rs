// SPDX-License-Identifier: Apache-2.0
//! Ids of backends by where they are, which the programs need where backends answer clients directly: by address and port, and of each service by
//! address alone, which is all that a packet of another node to a backend tells of it.

use super::{Target, write};
use crate::encode;
use abi::lb;
use model::{Forwarding, Frontend};

/// At how many addresses a frontend finds a backend.
pub(super) fn count(row: &Frontend) -> usize {
    if row.forwarding == Forwarding::Dsr { encode::by_address(row).len() } else { 0 }
}

impl Target {
    /// Writes the ids of a frontend's backends, which are there already.
    pub(super) fn put_ids(&self, row: &Frontend) -> datapath::Result<()> {
        if row.forwarding != Forwarding::Dsr {
            return Ok(());
        }
        for backend in row.backends.iter() {
            write(&self.maps.ids, &encode::backend_key(&encode::backend(backend)), &backend.id.0)?;
        }
        for (ip, backend) in encode::by_address(row) {
            write(&self.maps.ids, &lb::BackendKey::of_service(row.id, ip.into()), &backend.id.0)?;
        }
        Ok(())
    }

    /// A service does not find a backend by its address any more.
    pub(super) fn forget_id(&self, service: u32, backend: u32) -> datapath::Result<()> {
        let Some(value) = self.maps.backends.get(&backend)? else { return Ok(()) };
        self.remove_id(&lb::BackendKey::of_service(service, value.addr), backend)
    }

    /// Removes what finds a backend, unless it finds another by now.
    pub(super) fn remove_id(&self, key: &lb::BackendKey, backend: u32) -> datapath::Result<()> {
        if self.maps.ids.get(key)? == Some(backend) {
            self.maps.ids.remove(key)?;
        }
        Ok(())
    }

    /// Removes ids of backends that are not there, or elsewhere, or not the service's.
    pub(super) fn sweep_ids(&self) -> datapath::Result<()> {
        for (key, id) in self.maps.ids.entries()? {
            let backend = self.maps.backends.get(&id)?;
            let is_right = match key.service {
                0 => backend.is_some_and(|backend| encode::backend_key(&backend) == key),
                service => {
                    let is_member = self.maps.slots.get(&lb::SlotKey::member(service, id))?.is_some();
                    is_member && backend.is_some_and(|backend| backend.addr == key.addr)
                }
            };
            if !is_right {
                self.maps.ids.remove(&key)?;
            }
        }
        Ok(())
    }
}
