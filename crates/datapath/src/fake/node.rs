// SPDX-License-Identifier: Apache-2.0
//! A whole node in memory, on which an agent can be started, ended and started again.

use std::sync::Arc;

use super::{Hooks, Kernel, Network, Sockets, Wire};
use crate::{Host, Result, events};

/// A node's kernel in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its maps.
    pub maps: Kernel,
    /// What is attached.
    pub hooks: Hooks,
    /// Its interfaces and routes.
    pub network: Network,
    /// The links behind the interfaces.
    pub wire: Wire,
    /// Connections of its programs to Services.
    pub sockets: Sockets,
}

impl Node {
    /// What an agent gets of it. No program runs, so nothing is reported.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn host(&self) -> Result<Host> {
        self.host_with(Arc::new(self.maps.clone()))
    }

    /// The same with other maps, such as those that [`chaos`](super::chaos) spoils.
    ///
    /// # Errors
    ///
    /// A map cannot be opened or read.
    pub fn host_with(&self, maps: Arc<dyn crate::Kernel>) -> Result<Host> {
        Ok(Host {
            events: events::Reader::without_events(&*maps)?,
            maps,
            hooks: Arc::new(self.hooks.clone()),
            netlink: self.network.netlink(),
            wire: Arc::new(self.wire.clone()),
            sockets: Arc::new(self.sockets.clone()),
        })
    }
}
