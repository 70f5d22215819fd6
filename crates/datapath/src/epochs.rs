// SPDX-License-Identifier: Apache-2.0
//! The epochs: raising one makes the programs decide all flows of that scope anew.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Kernel, Map, Result};

/// The slot of the node's topology.
const NODE: u32 = 0;

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

    /// The node's topology has shrunk or moved: an address, a backend, a device. Returns the new epoch.
    pub fn bump_node(&self) -> Result<u32> {
        self.bump(NODE)
    }

    /// The verdicts of a local endpoint may have shrunk. Returns the new epoch.
    ///
    /// Id 0 is the host, whose flows are under the node's epoch: then all flows are decided anew.
    pub fn bump_endpoint(&self, id: u16) -> Result<u32> {
        self.bump(u32::from(id))
    }

    /// The node's epoch.
    pub fn node(&self) -> Result<u32> {
        self.endpoint(0)
    }

    /// The epoch of an endpoint.
    pub fn endpoint(&self, id: u16) -> Result<u32> {
        Ok(self.map.lock().get(&u32::from(id))?.unwrap_or_default())
    }

    fn bump(&self, slot: u32) -> Result<u32> {
        let map = self.map.lock();
        let epoch = map.get(&slot)?.unwrap_or_default();
        // 0 is what an untouched slot holds; skipping it keeps "never raised" apart from "raised 2^32 times".
        let next = epoch.checked_add(1).unwrap_or(1);
        map.insert(&slot, &next)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::fake;

    #[test]
    fn raising_one_epoch_leaves_the_others() {
        let epochs = Epochs::open(&fake::Kernel::new()).unwrap();
        assert_eq!(epochs.bump_endpoint(7).unwrap(), 1);
        assert_eq!(epochs.clone().bump_endpoint(7).unwrap(), 2);
        assert_eq!((epochs.node().unwrap(), epochs.endpoint(7).unwrap(), epochs.endpoint(8).unwrap()), (0, 2, 0));
    }

    #[test]
    fn an_epoch_wraps_past_zero() {
        let kernel = fake::Kernel::new();
        kernel.map::<abi::maps::Epochs>().unwrap().insert(&0, &u32::MAX).unwrap();
        assert_eq!(Epochs::open(&kernel).unwrap().bump_node().unwrap(), 1);
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
        assert_eq!(epochs.node().unwrap(), 400);
    }
}
