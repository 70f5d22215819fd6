// SPDX-License-Identifier: Apache-2.0
//! The pods of this node whose requests to Services are routed, and what they may reach. They follow the rest: of nobody is anything said
//! before policy has judged him.

use super::{Part, PartName, Peers};
use crate::cluster;
use model::{IdentityId, Permission, Pod};
use statedb::{Derived, Inputs, Tasks};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn derive(tasks: &Tasks, peers: &Peers) -> Derived<Part> {
    let by_ip = peers.pods.index(addresses);
    let (of_entry, pods) = (by_ip.clone(), peers.pods.clone());
    let inputs =
        Inputs::of(&peers.pods, |pod: &Pod| addresses(pod).into_iter().map(PartName::Client).collect::<Vec<_>>())
            .and(&peers.addresses, move |entry| {
                let ip = entry.prefix.addr();
                (!of_entry.get(&ip).is_empty()).then_some(PartName::Client(ip))
            })
            .and(&peers.permissions, move |permission| {
                let pods = pods.snapshot();
                let clients = pods.iter().flat_map(|pod| addresses(pod)).map(PartName::Client);
                clients.chain([PartName::Permission(permission.client)]).collect::<Vec<_>>()
            });
    let peers = peers.clone();
    statedb::derive(tasks, "gateway-callers", inputs, move |name: &PartName, _| {
        let permission = |identity: IdentityId| peers.permissions.snapshot().get(&identity);
        let object = match name {
            PartName::Client(ip) => {
                let pod = by_ip.get(ip).into_iter().next()?;
                let identity = cluster::identity(&peers.addresses, *ip);
                permission(IdentityId(identity))?;
                client(*ip, &pod, identity)
            }
            PartName::Permission(identity) => judged(&*permission(*identity)?),
            _ => return None,
        };
        Some(Part { name: name.clone(), objects: vec![object], refused: Vec::new() })
    })
}

/// The addresses that are a pod's alone.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    if pod.host_network || pod.ended { Vec::new() } else { pod.ips.clone() }
}

fn client(ip: IpAddr, pod: &Pod, identity: u32) -> l7::Object {
    l7::Client { name: ip.to_string().into(), namespace: Arc::clone(&pod.name.namespace), identity }.into()
}

fn judged(permission: &Permission) -> l7::Object {
    let servers = permission.servers.iter();
    let servers =
        servers.map(|((identity, port), allowed)| l7::Server { identity: identity.0, port: *port, allowed: *allowed });
    l7::Permission { name: l7::Permission::name_of(permission.client.0), servers: servers.collect() }.into()
}
