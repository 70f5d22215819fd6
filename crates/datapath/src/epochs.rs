// SPDX-License-Identifier: Apache-2.0
//! The epochs: raising one makes the programs decide all flows of that scope anew.

mod due;

use std::sync::Arc;

use abi::Addr;
use abi::epoch::{self, GENERATION, NODE};
use parking_lot::Mutex;

use crate::{Kernel, Map, Result};

pub use due::Due;

/// Shared handle to `abi::maps::Epochs`. Only one process may hold it: the lock is in memory.
///
/// Change the maps first and raise the epoch after, otherwise a packet in between is decided by the old maps under the
/// new epoch.
#[derive(Clone, Debug)]
pub struct Epochs {
    map: Arc<Mutex<Map<abi::maps::Epochs>>>,
}

impl Epochs {
    /// Opens the epochs.
    pub fn open<K: Kernel + ?Sized>(kernel: &K) -> Result<Self> {
        Ok(Self { map: Arc::new(Mutex::new(Map::open(kernel)?)) })
    }

    /// Any flow may be concerned: a device, a route or a whole prefix of addresses has moved.
    pub fn bump_node(&self) -> Result<()> {
        self.bump(NODE)
    }

    /// The flows of one peer are concerned: who has the address, how it is reached, whether it is a service or a backend.
    pub fn bump_peer(&self, address: impl Into<Addr>) -> Result<()> {
        self.bump(epoch::of_peer(address.into()))
    }

    /// The verdicts of a local endpoint may have shrunk, or it has gone.
    ///
    /// Id 0 is the host, whose flows are under the node's epoch: then all flows are decided anew.
    pub fn bump_endpoint(&self, id: u16) -> Result<()> {
        self.bump(u32::from(id))
    }

    /// The node's epoch.
    pub fn node(&self) -> Result<u32> {
        self.get(NODE)
    }

    /// The epoch of a peer's address, and of those that share its slot.
    pub fn peer(&self, address: impl Into<Addr>) -> Result<u32> {
        self.get(epoch::of_peer(address.into()))
    }

    /// The epoch of an endpoint.
    pub fn endpoint(&self, id: u16) -> Result<u32> {
        self.get(u32::from(id))
    }

    /// How often any epoch has been raised.
    pub fn generation(&self) -> Result<u32> {
        self.get(GENERATION)
    }

    fn get(&self, slot: u32) -> Result<u32> {
        Ok(self.map.lock().get(&slot)?.unwrap_or_default())
    }

    /// The generation first: a decision that is being made by the old maps must see that something moved, even if it ends
    /// under the new epoch.
    fn bump(&self, slot: u32) -> Result<()> {
        let map = self.map.lock();
        for slot in [GENERATION, slot] {
            let epoch = map.get(&slot)?.unwrap_or_default();
            map.insert(&slot, &epoch.wrapping_add(1))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::fake;
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn raising_one_epoch_leaves_the_others() {
        let epochs = Epochs::open(&fake::Kernel::new()).unwrap();
        epochs.bump_endpoint(7).unwrap();
        epochs.clone().bump_endpoint(7).unwrap();
        epochs.bump_peer(ip("10.0.0.1")).unwrap();
        assert_eq!((epochs.node().unwrap(), epochs.endpoint(7).unwrap(), epochs.endpoint(8).unwrap()), (0, 2, 0));
        assert_eq!((epochs.peer(ip("10.0.0.1")).unwrap(), epochs.peer(ip("10.0.0.2")).unwrap()), (1, 0));
        assert_eq!(epochs.generation().unwrap(), 3);
    }

    #[test]
    fn the_generation_moves_before_the_epoch() {
        let kernel = fake::Kernel::new();
        let chaos = fake::chaos(kernel.clone(), 0.3, 7);
        let epochs = (0..100).find_map(|_| Epochs::open(&chaos).ok()).unwrap();
        let seen = Epochs::open(&kernel).unwrap();
        for _ in 0..1000 {
            let before = (seen.node().unwrap(), seen.generation().unwrap());
            let done = epochs.bump_node();
            let after = (seen.node().unwrap(), seen.generation().unwrap());
            assert!(after.0 == before.0 || after.1 > before.1, "{before:?} {after:?}");
            assert!(done.is_err() || after.0 > before.0, "{before:?} {after:?}");
        }
    }

    #[test]
    fn concurrent_bumps_are_all_counted() {
        let epochs = Epochs::open(&fake::Kernel::new()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        epochs.bump_node().unwrap();
                    }
                });
            }
        });
        assert_eq!((epochs.node().unwrap(), epochs.generation().unwrap()), (400, 400));
    }
}
