// SPDX-License-Identifier: Apache-2.0
//! Writes routes to the kernel's main table. Ours are marked by their protocol number; others are never touched.

use crate::resolve::{Hop, Route};
use datapath::netlink::{Encap, MAIN_TABLE, Netlink, Route as KernelRoute, Scope};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// `rtprot` of the routes between nodes.
pub const ROUTE_PROTOCOL: u8 = 202;

/// How long a listing of the kernel's routes is trusted: long enough to compare every route with it, too short to miss
/// that a device has taken its routes with it.
const BELIEVED: Duration = Duration::from_secs(2);

/// A route could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("route to {prefix}")]
    Refused {
        /// Where to, or `(all)`.
        prefix: String,
        /// Why.
        source: datapath::Error,
    },
    /// The kernel cannot do what tunnel routing needs.
    #[error("route to {prefix}: this kernel has no lightweight tunnels (CONFIG_LWTUNNEL); use routing-mode: native")]
    NoTunnelRoutes {
        /// Where to.
        prefix: String,
        /// Why.
        source: datapath::Error,
    },
}

impl Error {
    fn of(row: &Route, source: datapath::Error) -> Self {
        let prefix = row.prefix.to_string();
        let unsupported =
            matches!(&source, datapath::Error::Netlink { source, .. } if source.kind() == io::ErrorKind::Unsupported);
        if unsupported && matches!(row.hop, Hop::Tunnel { .. }) {
            Self::NoTunnelRoutes { prefix, source }
        } else {
            Self::Refused { prefix, source }
        }
    }
}

/// Writes routes to the kernel.
#[derive(Debug)]
pub(crate) struct Target {
    netlink: Netlink,
    seen: Option<(Instant, BTreeMap<IpNet, KernelRoute>)>,
}

impl Target {
    pub(crate) const fn new(netlink: Netlink) -> Self {
        Self { netlink, seen: None }
    }

    /// Whether the kernel has exactly this route, as of a fresh listing.
    async fn has(&mut self, wanted: &KernelRoute) -> datapath::Result<bool> {
        if self.seen.as_ref().is_none_or(|(at, _)| at.elapsed() > BELIEVED) {
            let ours = ours(&self.netlink).await?;
            self.seen = Some((Instant::now(), ours.into_iter().map(|route| (route.destination, route)).collect()));
        }
        let present = self.seen.as_ref().and_then(|(_, routes)| routes.get(&wanted.destination));
        Ok(present.is_some_and(|present| same(present, wanted)))
    }

    async fn put(&mut self, row: &Route) -> datapath::Result<()> {
        let wanted = kernel_route(row);
        if self.has(&wanted).await? {
            return Ok(());
        }
        self.netlink.replace_route(&wanted).await?;
        if let Some((_, routes)) = &mut self.seen {
            routes.insert(wanted.destination, wanted);
        }
        Ok(())
    }

    /// Removes our routes to undesired destinations, and duplicates to desired ones.
    async fn sweep(&mut self, desired: &BTreeMap<IpNet, KernelRoute>) -> datapath::Result<()> {
        let mut present: BTreeMap<IpNet, Vec<KernelRoute>> = BTreeMap::new();
        for route in ours(&self.netlink).await? {
            present.entry(route.destination).or_default().push(route);
        }
        for (destination, routes) in present {
            let wanted = desired.get(&destination);
            let right = |route: &KernelRoute| wanted.is_some_and(|wanted| same(route, wanted));
            let replaceable = wanted.is_some() && !routes.iter().any(right);
            for route in routes.iter().filter(|route| !right(route) && !replaceable) {
                self.netlink.delete_route(route).await?;
            }
        }
        Ok(())
    }
}

/// Our routes in the kernel.
pub(crate) async fn ours(netlink: &Netlink) -> datapath::Result<Vec<KernelRoute>> {
    let mut routes = netlink.routes(MAIN_TABLE).await?;
    routes.retain(|route| route.protocol == ROUTE_PROTOCOL);
    Ok(routes)
}

/// The row in the kernel's form.
pub(crate) fn kernel_route(row: &Route) -> KernelRoute {
    let mut route = KernelRoute::to(row.prefix);
    route.protocol = ROUTE_PROTOCOL;
    route.source = row.source;
    route.mtu = row.mtu;
    match row.hop {
        Hop::Tunnel { remote, device } => {
            // The identity of the host, as other nodes see it.
            let id = u64::from(abi::identity::REMOTE_NODE);
            route.encap = Some(Encap { id, dst: remote });
            route.ifindex = Some(device);
            route.scope = Scope::Link;
        }
        Hop::Direct { gateway, device } => {
            route.gateway = Some(gateway);
            route.ifindex = Some(device);
        }
        Hop::Unreachable => route.unreachable = true,
    }
    route
}

/// Whether two routes are equivalent: the kernel fills in what we leave open.
pub(crate) fn same(present: &KernelRoute, wanted: &KernelRoute) -> bool {
    let device = wanted.unreachable || present.ifindex == wanted.ifindex;
    device
        && present.unreachable == wanted.unreachable
        && present.gateway == wanted.gateway
        && present.source == wanted.source
        && present.encap == wanted.encap
        && present.mtu == wanted.mtu
}

impl statedb::Target<Route> for Target {
    type Error = Error;

    async fn update(&mut self, row: &Route) -> Result<(), Error> {
        self.put(row).await.map_err(|source| {
            self.seen = None;
            Error::of(row, source)
        })
    }

    async fn delete(&mut self, prefix: &IpNet) -> Result<(), Error> {
        let fail = |source| Error::Refused { prefix: prefix.to_string(), source };
        self.seen = None;
        for route in ours(&self.netlink).await.map_err(fail)? {
            if route.destination == *prefix {
                self.netlink.delete_route(&route).await.map_err(fail)?;
            }
        }
        Ok(())
    }

    async fn prune(&mut self, desired: &statedb::Snapshot<Route>) -> Result<(), Error> {
        let desired = desired.iter().map(|row| (row.prefix, kernel_route(row))).collect();
        self.sweep(&desired).await.map_err(|source| Error::Refused { prefix: "(all)".to_owned(), source })
    }
}

#[cfg(test)]
mod tests;
