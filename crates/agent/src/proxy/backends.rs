// SPDX-License-Identifier: Apache-2.0
//! The Service of a Gateway selects no pods. Here its endpoints are the node's own proxies: whatever arrives at a node is served there.

use super::Proxy;
use gateway::{ObjectName, Taken};
use model::{Pod, PodName, Protocol, ServiceName};
use services::{EndpointSlice, Port, SliceEndpoint, SliceName};
use statedb::{Inputs, Reader, Tasks};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A slice for each proxy and Service that it takes packets of.
pub(super) fn derive(tasks: &Tasks, proxies: &Reader<Proxy>, pods: &Reader<Pod>, node: &str) -> Reader<EndpointSlice> {
    let by_pod = proxies.clone();
    let inputs = Inputs::of(proxies, names)
        .and(pods, move |pod| by_pod.snapshot().get(&pod.name).map(|proxy| names(&proxy)).unwrap_or_default());
    let (by_slice, pods, node) = (proxies.index(names), pods.clone(), Arc::<str>::from(node));
    let row = move |name: &SliceName, _: Option<&EndpointSlice>| {
        let proxy = by_slice.get(name).into_iter().next()?;
        let pod = pods.snapshot().get(&proxy.pod)?;
        slice(name, &proxy, &pod, &node)
    };
    statedb::derive(tasks, "proxy-slices", inputs, row).rows
}

/// Names of a proxy's slices.
fn names(proxy: &Proxy) -> BTreeSet<SliceName> {
    proxy.taken.iter().map(|taken| slice_name(&taken.service, &proxy.pod)).collect()
}

/// No object can have a name like that.
fn slice_name(service: &ObjectName, pod: &PodName) -> SliceName {
    SliceName { namespace: Arc::clone(&service.namespace), name: format!("{}@{pod}", service.name).into() }
}

fn slice(name: &SliceName, proxy: &Proxy, pod: &Pod, node: &Arc<str>) -> Option<EndpointSlice> {
    let of_slice = |taken: &&Taken| slice_name(&taken.service, &proxy.pod) == *name;
    let taken: Vec<&Taken> = proxy.taken.iter().filter(of_slice).collect();
    let service = &taken.first()?.service;
    let mut ports: Vec<Port> = Vec::new();
    for one in &taken {
        let protocol = if one.udp { Protocol::Udp } else { Protocol::Tcp };
        let port = Port { name: Some(one.port_name.as_str().into()), protocol, port: one.address.port() };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let listens = |ip: &&std::net::IpAddr| taken.iter().any(|one| one.address.is_ipv4() == ip.is_ipv4());
    let endpoint = |ip: &std::net::IpAddr| SliceEndpoint {
        ip: *ip,
        node: Some(Arc::clone(node)),
        zone: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
        ready: !proxy.leaving,
        serving: true,
        terminating: proxy.leaving,
    };
    Some(EndpointSlice {
        name: name.clone(),
        service: ServiceName::new(Arc::clone(&service.namespace), Arc::clone(&service.name)),
        ports,
        endpoints: pod.ips.iter().filter(listens).map(endpoint).collect(),
        problems: Vec::new(),
    })
}
