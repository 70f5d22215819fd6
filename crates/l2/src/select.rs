// SPDX-License-Identifier: Apache-2.0
//! Which addresses this node announces where, once it holds the Lease of their Service. Pure.
//!
//! Services may share an address. Then the oldest of them leads, and the address follows its Lease: all nodes see the
//! same objects, so they agree on the leader.

use crate::campaign::lease_name;
use crate::policy::{Policy, Rule};
use crate::service::{Endpoints, Service};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::core::SelectorExt;
use model::{Device, Mac, Node, ServiceName};
use statedb::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All inputs.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) policies: Snapshot<Policy>,
    pub(crate) services: Snapshot<Service>,
    pub(crate) endpoints: Snapshot<Endpoints>,
    pub(crate) nodes: Snapshot<Node>,
    pub(crate) devices: Snapshot<Device>,
}

/// An address of a Service, and a device to announce it on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) service: ServiceName,
    pub(crate) address: IpAddr,
    pub(crate) device: String,
    pub(crate) ifindex: u32,
    pub(crate) mac: Mac,
}

/// Places by Lease name. Two Services may have the same Lease name: then they have the same holder.
pub(crate) type Places = BTreeMap<String, BTreeSet<Place>>;

/// A Service, the addresses a policy selects, and the policy.
struct Claim<'a> {
    service: &'a Service,
    rule: &'a Rule,
    addresses: Vec<IpAddr>,
}

/// Age, or by name if that is all there is.
type Seniority<'a> = (Option<Timestamp>, &'a ServiceName);

/// The places of each Lease that this node is a candidate for. `of_family` says whether an address's family is enabled.
pub(crate) fn places(view: &View, of_family: impl Fn(IpAddr) -> bool) -> Places {
    let Some(here) = view.nodes.iter().find(|node| node.local) else { return Places::new() };
    let claims = claims(view, of_family);
    let leaders = leaders(&claims);
    let mut places = Places::new();
    let ours =
        claims.iter().filter(|claim| claim.rule.nodes.matches(&here.labels) && is_served_here(view, claim.service));
    for claim in ours {
        let led = claim
            .addresses
            .iter()
            .filter(|address| leaders.get(address).is_some_and(|(_, name)| **name == claim.service.name));
        let devices = view.devices.iter().filter(|device| claim.rule.is_for(device));
        let devices: Vec<(&Device, Mac)> = devices.filter_map(|device| Some((&**device, device.mac()?))).collect();
        let found =
            led.flat_map(|address| devices.iter().map(|(device, mac)| place(claim.service, *address, device, *mac)));
        let found: BTreeSet<Place> = found.collect();
        if !found.is_empty() {
            places.entry(lease_name(&claim.service.name)).or_default().extend(found);
        }
    }
    places
}

/// What the policies select, regardless of where it may be announced.
fn claims(view: &View, of_family: impl Fn(IpAddr) -> bool) -> Vec<Claim<'_>> {
    // Answering for a node's address would hijack the node's own traffic.
    let of_nodes: BTreeSet<IpAddr> = view.nodes.iter().flat_map(|node| addresses_of(node)).collect();
    let free = |address: &IpAddr| of_family(*address) && !of_nodes.contains(address);
    let rules: Vec<&Rule> = view.policies.iter().filter_map(|policy| policy.rule.as_ref()).collect();
    let mut claims = Vec::new();
    for service in view.services.iter() {
        for rule in rules.iter().filter(|rule| rule.services.matches(&service.labels)) {
            let addresses: Vec<IpAddr> = rule.addresses(service).filter(free).collect();
            claims.push(Claim { service, rule, addresses });
        }
    }
    claims
}

fn leaders<'a>(claims: &[Claim<'a>]) -> BTreeMap<IpAddr, Seniority<'a>> {
    let mut leaders = BTreeMap::new();
    for claim in claims {
        let seniority = (claim.service.created, &claim.service.name);
        for address in &claim.addresses {
            let leader = leaders.entry(*address).or_insert(seniority);
            *leader = (*leader).min(seniority);
        }
    }
    leaders
}

/// Whether traffic arriving here finds an endpoint. Endpoints on no node are everywhere: for a Gateway the node itself
/// listens, and its Service selects no pods and has a placeholder address.
fn is_served_here(view: &View, service: &Service) -> bool {
    if !service.local {
        return true;
    }
    match view.endpoints.get(&service.name) {
        Some(endpoints) => endpoints.here || !endpoints.placed,
        None => !service.selects_pods,
    }
}

fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    node.internal_ips.iter().chain(&node.external_ips).chain(&node.cilium_internal_ips).copied()
}

fn place(service: &Service, address: IpAddr, device: &Device, mac: Mac) -> Place {
    Place { service: service.name.clone(), address, device: device.name.clone(), ifindex: device.index, mac }
}

impl Rule {
    /// Whether it matches the device, which must be usable.
    fn is_for(&self, device: &Device) -> bool {
        let named = self.devices.is_empty() || self.devices.iter().any(|names| names.matches(&device.name));
        device.selected && device.running && named
    }

    fn addresses<'a>(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> + use<'a> {
        let external = if self.external_ips { service.external_ips.as_slice() } else { &[] };
        let given = if self.load_balancer_ips { service.load_balancer_ips.as_slice() } else { &[] };
        external.iter().chain(given).copied()
    }
}

#[cfg(test)]
mod tests;
