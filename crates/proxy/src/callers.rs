// SPDX-License-Identifier: Apache-2.0
//! The node's pods that send to Services, and what policy lets each reach. The proxy speaks to backends as itself, so what they let
//! it do says nothing of its clients.

use crate::invalid::Invalid;
use crate::upstream::{Endpoint, Upstream};
use imbl::HashMap;
use l7::{Client, Name, Permission};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// All of them. A clone shares what does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callers {
    by_address: HashMap<IpAddr, Arc<Client>>,
    permissions: HashMap<Name, Reachable>,
}

/// Whether endpoints may be reached, by identity and port.
type Reachable = Arc<std::collections::HashMap<(u32, u16), bool>>;

/// A pod that asks, with what it may reach as of the moment of its request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) namespace: Name,
    reachable: Reachable,
}

/// Policy refuses a pod what was chosen for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied;

/// What policy says of a pod's request to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
    /// Nothing yet.
    Unknown,
}

impl Caller {
    pub(crate) fn may_reach(&self, identity: u32, address: SocketAddr) -> Verdict {
        match self.reachable.get(&(identity, address.port())) {
            Some(true) => Verdict::Allowed,
            Some(false) => Verdict::Denied,
            None => Verdict::Unknown,
        }
    }

    /// Where the pod is led to whom this endpoint was chosen for. To the pod it is one like the others, so policy decides about the one
    /// that was chosen; but one of which policy has not said anything yet is left to those who come later. Nothing: there is no other.
    pub(crate) fn led_to(&self, upstream: &Upstream, chosen: Arc<Endpoint>) -> Result<Option<Arc<Endpoint>>, Denied> {
        let verdict = |endpoint: &Endpoint| self.may_reach(endpoint.identity, endpoint.address);
        match verdict(&chosen) {
            Verdict::Allowed => Ok(Some(chosen)),
            Verdict::Denied => Err(Denied),
            Verdict::Unknown => {
                let usable = upstream.endpoints().filter(|(_, usable)| *usable).map(|(endpoint, _)| endpoint);
                let mut allowed = usable.filter(|endpoint| verdict(endpoint) == Verdict::Allowed);
                Ok(allowed.next().cloned())
            }
        }
    }
}

impl Callers {
    /// The pod that has the address; nothing if it, or what it may reach, is not known.
    pub(crate) fn get(&self, address: IpAddr) -> Option<Caller> {
        let client = self.by_address.get(&address.to_canonical())?;
        let reachable = self.permissions.get(&Permission::name_of(client.identity))?;
        Some(Caller { namespace: Arc::clone(&client.namespace), reachable: Arc::clone(reachable) })
    }

    /// Whether policy refuses that the pod with the address reaches an endpoint. It does not while it says nothing.
    pub(crate) fn refuses(&self, address: IpAddr, identity: u32, endpoint: SocketAddr) -> bool {
        self.get(address).is_some_and(|caller| caller.may_reach(identity, endpoint) == Verdict::Denied)
    }

    pub(crate) fn set_client(&mut self, client: &Arc<Client>) -> Result<(), Invalid> {
        let address = client.address().ok_or_else(|| Invalid::new("name", "it is no address"))?;
        self.by_address.insert(address, Arc::clone(client));
        Ok(())
    }

    pub(crate) fn remove_client(&mut self, name: &str) {
        if let Ok(address) = name.parse::<IpAddr>() {
            self.by_address.remove(&address);
        }
    }

    pub(crate) fn set_permission(&mut self, permission: &Permission) {
        let servers = permission.servers.iter().map(|server| ((server.identity, server.port), server.allowed));
        self.permissions.insert(Arc::clone(&permission.name), Arc::new(servers.collect()));
    }

    pub(crate) fn remove_permission(&mut self, name: &Name) {
        self.permissions.remove(name);
    }
}
