// SPDX-License-Identifier: Apache-2.0
//! What is to be raised once the maps have changed.

use std::collections::BTreeSet;

use abi::Addr;

use super::Epochs;
use crate::Result;

/// Epochs that are due. What cannot be raised stays due, so that a target which fails half-way and is tried again loses none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    node: bool,
    peers: BTreeSet<Addr>,
    endpoints: BTreeSet<u16>,
}

impl Due {
    /// See [`Epochs::bump_node`].
    pub const fn node(&mut self) {
        self.node = true;
    }

    /// See [`Epochs::bump_peer`].
    pub fn peer(&mut self, address: impl Into<Addr>) {
        self.peers.insert(address.into());
    }

    /// See [`Epochs::bump_endpoint`].
    pub fn endpoint(&mut self, id: u16) {
        self.endpoints.insert(id);
    }

    /// Raises what is due. To be called after the maps have been changed, never before: what is decided in between would be wrong
    /// for good.
    pub fn raise(&mut self, epochs: &Epochs) -> Result<()> {
        if self.node {
            // Every flow is under the node's epoch.
            epochs.bump_node()?;
            *self = Self::default();
        }
        while let Some(address) = self.peers.first().copied() {
            epochs.bump_peer(address)?;
            self.peers.remove(&address);
        }
        while let Some(id) = self.endpoints.first().copied() {
            epochs.bump_endpoint(id)?;
            self.endpoints.remove(&id);
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

    #[test]
    fn what_is_due_is_raised_once_and_the_node_stands_for_all() {
        let epochs = Epochs::open(&fake::Kernel::new()).unwrap();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let mut due = Due::default();
        due.peer(address);
        due.peer(address);
        due.endpoint(7);
        due.raise(&epochs).unwrap();
        due.raise(&epochs).unwrap();
        assert_eq!((epochs.peer(address).unwrap(), epochs.endpoint(7).unwrap(), epochs.node().unwrap()), (1, 1, 0));
        due.peer(address);
        due.node();
        due.raise(&epochs).unwrap();
        assert_eq!((epochs.peer(address).unwrap(), epochs.node().unwrap(), &due), (1, 1, &Due::default()));
    }

    #[test]
    fn what_could_not_be_raised_stays_due() {
        let kernel = fake::Kernel::new();
        let chaos = fake::chaos(kernel.clone(), 0.5, 3);
        let epochs = (0..100).find_map(|_| Epochs::open(&chaos).ok()).unwrap();
        let addresses: Vec<IpAddr> = (1..=20).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let mut due = Due::default();
        addresses.iter().for_each(|address| due.peer(*address));
        assert!((0..10_000).any(|_| due.raise(&epochs).is_ok()));
        let seen = Epochs::open(&kernel).unwrap();
        assert!(addresses.iter().all(|address| seen.peer(*address).unwrap() > 0));
    }
}
