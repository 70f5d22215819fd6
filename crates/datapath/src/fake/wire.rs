// SPDX-License-Identifier: Apache-2.0
//! Links in memory: what would be sent and listened to is remembered. Their clock is tokio's, which tests pause.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Result;
use crate::netlink::Mac;

/// Links in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct Wire {
    booted: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    announced: Vec<(u32, Mac, IpAddr)>,
    heard: BTreeSet<(u32, IpAddr)>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { booted: Instant::now(), state: Arc::default() }
    }
}

impl Wire {
    /// What has been announced since the last call: interface index, hardware address and address.
    #[must_use]
    pub fn announced(&self) -> Vec<(u32, Mac, IpAddr)> {
        std::mem::take(&mut self.state.lock().announced)
    }

    /// The addresses for which somebody listens, with the interface index.
    #[must_use]
    pub fn heard(&self) -> BTreeSet<(u32, IpAddr)> {
        self.state.lock().heard.clone()
    }
}

impl crate::Wire for Wire {
    fn since_boot(&self) -> Duration {
        self.booted.elapsed()
    }

    fn announce(&self, ifindex: u32, mac: Mac, address: IpAddr) -> Result<()> {
        self.state.lock().announced.push((ifindex, mac, address));
        Ok(())
    }

    fn listen(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        self.state.lock().heard.insert((ifindex, address));
        Ok(())
    }

    fn ignore(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        self.state.lock().heard.remove(&(ifindex, address));
        Ok(())
    }
}
