// SPDX-License-Identifier: Apache-2.0
//! All that an agent has of its node's kernel, as one value: the real one, or one in memory.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use crate::bpf::Datapath;
use crate::netlink::Netlink;
use crate::sockets::{Diag, NETNS_DIR};
use crate::wire::Links;
use crate::{Hooks, Kernel, Result, Sockets, Wire, events};

/// A node's kernel. [`crate::fake::Node`] makes one in memory.
pub struct Host {
    /// Maps.
    pub maps: Arc<dyn Kernel>,
    /// Where programs are attached.
    pub hooks: Arc<dyn Hooks>,
    /// Interfaces, addresses, routes and neighbours.
    pub netlink: Netlink,
    /// The links behind the interfaces.
    pub wire: Arc<dyn Wire>,
    /// Connections of the node's programs to Services.
    pub sockets: Arc<dyn Sockets>,
    /// What the programs report.
    pub events: events::Reader,
}

impl Host {
    /// The real one, with the network namespace of the calling thread. The runtime that is entered drives it.
    pub fn open(datapath: Datapath, bpffs: &Path) -> Result<Self> {
        let datapath = Arc::new(datapath);
        Ok(Self {
            maps: Arc::<Datapath>::clone(&datapath),
            sockets: Arc::new(Diag::open(&datapath, NETNS_DIR)?),
            hooks: datapath,
            netlink: Netlink::open()?,
            wire: Arc::new(Links::open()?),
            events: events::Reader::open(bpffs)?,
        })
    }
}

impl Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}
