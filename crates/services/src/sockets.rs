// SPDX-License-Identifier: Apache-2.0
//! Connections that were translated at the socket end with their backend: no packet of theirs passes a program that could choose
//! another, and a datagram socket would send to an address that is gone for as long as it lives. What comes from there later, to a socket
//! without a connection, does not come in the Service's name either.

use crate::Config;
use crate::encode;
use abi::lb::Connected;
use datapath::Sockets;
use datapath::sockets::Scope;
use model::{BackendState, Frontend, FrontendKey, L4Addr};
use statedb::{Reader, Snapshot, blocking};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// After that long a program that was choosing the backend when it went has connected its socket.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Between attempts, when the kernel fails.
const RETRY: Duration = Duration::from_secs(30);

/// Ends them.
pub(crate) struct Closer {
    pub(crate) sockets: Arc<dyn Sockets>,
    pub(crate) frontends: Reader<Frontend>,
    /// Told of each backend that the maps have no longer.
    pub(crate) gone: Arc<Notify>,
    pub(crate) scope: Scope,
}

/// The sockets whose connections are ended.
pub(crate) const fn scope(config: &Config) -> Scope {
    Scope { pods: config.close_sockets_of_pods && !config.sockets_of_host_only, streams: config.close_streams }
}

impl Closer {
    /// Looks at the node's sockets whenever backends have gone, however many, and at the start for what went while no agent ran; again and
    /// again where that fails.
    pub(crate) async fn run(self) {
        self.frontends.initialized().await;
        let mut failing = false;
        loop {
            self.gone.notified().await;
            for look in [Duration::ZERO, SECOND_LOOK] {
                sleep(look).await;
                failing = self.look(failing).await;
            }
            while failing {
                sleep(RETRY).await;
                failing = self.look(failing).await;
            }
        }
    }

    /// One look at all of them; whether it has failed.
    async fn look(&self, failing: bool) -> bool {
        let (sockets, frontends, scope) = (Arc::clone(&self.sockets), self.frontends.snapshot(), self.scope);
        let closed =
            blocking(move || sockets.close(scope, &|protocol, connection| !leads_on(&frontends, protocol, connection)));
        match closed.await {
            Ok(0) => false,
            Ok(sockets) => {
                tracing::info!(sockets, "connections to backends that are gone have been ended");
                false
            }
            Err(error) => {
                if !failing {
                    let error = statedb::with_causes(&error);
                    tracing::warn!(error, "connections to backends that are gone stay for now");
                }
                true
            }
        }
    }
}

/// Whether the frontend that a socket was connected to has its backend still. Of a port of another node that is the one of all nodes.
fn leads_on(frontends: &Snapshot<Frontend>, protocol: u8, connection: &Connected) -> bool {
    let address = |addr: abi::Addr, port: u16| {
        Some(L4Addr { ip: addr.into(), port: u16::from_be(port), protocol: encode::protocol(protocol)? })
    };
    let asked = address(connection.frontend, connection.frontend_port);
    let Some((asked, backend)) = asked.zip(address(connection.backend, connection.backend_port)) else { return true };
    let of_all_nodes = match asked.ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let places = [asked, L4Addr { ip: of_all_nodes, ..asked }];
    let scopes = [model::Scope::External, model::Scope::Internal, model::Scope::Unredirected];
    let keys = places.into_iter().flat_map(|addr| scopes.map(|scope| FrontendKey { addr, scope }));
    keys.filter_map(|key| frontends.get(&key))
        .any(|row| row.backends.iter().any(|b| b.addr == backend && b.state != BackendState::Quarantined))
}

#[cfg(test)]
mod tests;
