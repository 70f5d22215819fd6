// SPDX-License-Identifier: Apache-2.0
//! Which addresses this node announces where, once it holds the Lease of their Service. Pure.
//!
//! Services may share an address. Then the oldest of them leads, and the address follows its Lease: all nodes see the
//! same objects, so they agree on the leader. One that was given the address leads those whose authors only name it.

use crate::campaign::lease_name;
use crate::policy::{Policy, Rule};
use crate::service::{Endpoints, Service};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::core::SelectorExt;
use model::{Device, Mac, Node, ServiceName};
use sha2::{Digest, Sha256};
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

/// Places by the name of the Lease whose holder announces there.
pub(crate) type Places = BTreeMap<String, BTreeSet<Place>>;

/// Devices without a carrier on which the addresses of a Lease are to be announced, by its name.
pub(crate) type Down = BTreeMap<String, BTreeSet<String>>;

/// A Service, the addresses a policy selects, and the policy.
struct Claim<'a> {
    service: &'a Service,
    rule: &'a Rule,
    addresses: Vec<IpAddr>,
}

/// Age, or by name if that is all there is.
type Seniority<'a> = (Option<Timestamp>, &'a ServiceName);

/// Whether the address is only named by the author of the Service, and then its seniority.
type Precedence<'a> = (bool, Seniority<'a>);

/// What is announced, here and elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    /// The places of each Lease that this node is a candidate for.
    pub(crate) places: Places,
    pub(crate) down: Down,
    /// The Lease of each address, whoever its candidates are.
    pub(crate) leases: BTreeMap<IpAddr, String>,
}

/// What the policies announce. `of_family` says whether an address's family is enabled.
pub(crate) fn select(view: &View, of_family: impl Fn(IpAddr) -> bool) -> Selected {
    let Some(here) = view.nodes.iter().find(|node| node.local) else { return Selected::default() };
    let claims = claims(view, of_family);
    let (leaders, names) = (leaders(&claims), lease_names(view));
    let (mut places, mut down) = (Places::new(), Down::new());
    let is_ours = |claim: &&Claim<'_>| {
        claim.rule.nodes.matches(&here.labels) && is_served_here(view, claim.service, &here.labels)
    };
    let ours = claims.iter().filter(is_ours);
    for claim in ours {
        let led = claim
            .addresses
            .iter()
            .filter(|address| leaders.get(address).is_some_and(|(_, (_, name))| **name == claim.service.name));
        let devices = view.devices.iter().filter(|device| claim.rule.is_for(device));
        let devices = devices.filter_map(|device| Some((&**device, device.mac()?)));
        let (devices, missing): (Vec<(&Device, Mac)>, Vec<_>) = devices.partition(|(device, _)| device.running);
        let found =
            led.flat_map(|address| devices.iter().map(|(device, mac)| place(claim.service, *address, device, *mac)));
        let found: BTreeSet<Place> = found.collect();
        if !found.is_empty() {
            let lease = names.get(&claim.service.name).cloned().unwrap_or_default();
            let missing: BTreeSet<_> = missing.iter().map(|(device, _)| device.name.clone()).collect();
            if !missing.is_empty() {
                down.entry(lease.clone()).or_default().extend(missing);
            }
            places.entry(lease).or_default().extend(found);
        }
    }
    let lease_of =
        |(address, (_, (_, service))): (IpAddr, Precedence<'_>)| Some((address, names.get(service)?.clone()));
    Selected {
        places,
        down,
        leases: leaders.iter().map(|(address, leader)| (*address, *leader)).filter_map(lease_of).collect(),
    }
}

/// The Lease of each Service. `a-b/c` and `a/b-c` would have one: the younger of them has what no name of a Service can end in besides.
fn lease_names(view: &View) -> BTreeMap<&ServiceName, String> {
    let mut first: BTreeMap<String, Seniority<'_>> = BTreeMap::new();
    for service in view.services.iter() {
        let seniority = (service.created, &service.name);
        let known = first.entry(lease_name(&service.name)).or_insert(seniority);
        *known = (*known).min(seniority);
    }
    let name = |service: &ServiceName| {
        let plain = lease_name(service);
        if first.get(&plain).is_some_and(|(_, first)| *first == service) {
            return plain;
        }
        let digest = Sha256::digest(service.to_string());
        let suffix: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{plain}.{suffix}")
    };
    view.services.iter().map(|service| (&service.name, name(&service.name))).collect()
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

fn leaders<'a>(claims: &[Claim<'a>]) -> BTreeMap<IpAddr, Precedence<'a>> {
    let mut leaders = BTreeMap::new();
    for claim in claims {
        let seniority = (claim.service.created, &claim.service.name);
        for address in &claim.addresses {
            let precedence = (!claim.service.load_balancer_ips.contains(address), seniority);
            let leader = leaders.entry(*address).or_insert(precedence);
            *leader = (*leader).min(precedence);
        }
    }
    leaders
}

/// Whether traffic arriving here finds an endpoint. Endpoints on no node are everywhere: for a Gateway the node itself
/// listens, and its Service selects no pods and has a placeholder address.
fn is_served_here(view: &View, service: &Service, labels: &BTreeMap<String, String>) -> bool {
    if !service.nodes.matches(labels) {
        return false;
    }
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
        device.selected && named
    }

    fn addresses<'a>(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> + use<'a> {
        let external = if self.external_ips { service.external_ips.as_slice() } else { &[] };
        let given = if self.load_balancer_ips { service.load_balancer_ips.as_slice() } else { &[] };
        external.iter().chain(given).copied()
    }
}

#[cfg(test)]
mod tests;
