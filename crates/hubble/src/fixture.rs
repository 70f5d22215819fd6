// SPDX-License-Identifier: Apache-2.0
//! A small node for tests: the pod `shop/web-1` (local, endpoint 10) and `shop/db-0` (behind another node).

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::decode::{Decoder, Record};
use crate::names::{Resolver, Tables};
use abi::Addr;
use abi::event::{Event, SocketEvent, Verdict, kind, outcome, point, trace_reason, translation};
use abi::policy::match_type;
use model::{
    Endpoint, EndpointId, EndpointKind, Frontend, FrontendKey, Identity, IdentityId, IpEntry, IpSource, L4Addr, Label,
    Labels, Mac, MeshPod, Node, NodeName, Pod, PodName, PolicyKind, Protocol, Provenance, ProvenanceId, ServiceName,
    Workload,
};
use statedb::Writer;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The writers behind the tables.
pub(crate) struct Writers {
    pub(crate) ipcache: Writer<IpEntry>,
    pub(crate) nodes: Writer<Node>,
    pub(crate) tables: Tables,
}

pub(crate) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn decoder() -> Decoder {
    Decoder { node_name: "blue/n1".to_owned(), version: "0.1.0".to_owned(), correlate_policies: true, instance: 7 }
}

pub(crate) fn node_name() -> NodeName {
    NodeName { cluster: "blue".to_owned(), name: "n1".to_owned() }
}

pub(crate) fn record(event: Event) -> Record {
    let (event, names) = Resolver::new(tables().tables, node_name()).complete(&event).unwrap();
    Record { time: 1_700_000_000_123_456_789, event, names, request: None }
}

/// Now, by the clock of events.
pub(crate) fn monotonic() -> u64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    (t.tv_sec() * 1_000_000_000 + t.tv_nsec()).cast_unsigned()
}

/// From `shop/web-1` to the service `shop/db`, let through by both policies.
pub(crate) fn allowed_syn() -> Event {
    Event {
        src: addr("10.0.0.10"),
        dst: addr("10.0.1.20"),
        dst_orig: addr("10.96.0.5"),
        sport: 41000_u16.to_be(),
        dport: 5432_u16.to_be(),
        src_mac: [2, 0, 0, 0, 0, 10],
        dst_mac: [2, 0, 0, 0, 0, 1],
        src_identity: 300,
        dst_identity: 301,
        src_endpoint: 10,
        ifindex: 42,
        len: 60,
        packets: 1,
        egress: Verdict { provenance: 2, outcome: outcome::ALLOW, match_type: match_type::L3_ONLY, pad: 0 },
        ingress: Verdict { provenance: 1, outcome: outcome::ALLOW, match_type: match_type::L3_L4, pad: 0 },
        kind: kind::TRACE,
        point: point::TO_OVERLAY,
        reason: trace_reason::NEW,
        proto: 6,
        tcp_flags: 2,
        ..Event::default()
    }
}

/// `shop/web-1` connects to the service `shop/db`.
pub(crate) fn connected() -> SocketEvent {
    SocketEvent {
        dst: addr("10.0.1.20"),
        cookie: 0x4711,
        cgroup: 4242,
        dst_orig: addr("10.96.0.5"),
        dport: 15432_u16.to_be(),
        dport_orig: 5432_u16.to_be(),
        netns: 4711,
        kind: kind::TRACE_SOCK,
        point: translation::FORWARD,
        proto: 6,
        ..SocketEvent::default()
    }
}

/// From `shop/db-0` to `shop/web-1`, which lets nobody in.
pub(crate) fn denied_syn() -> Event {
    Event {
        src: addr("10.0.1.20"),
        dst: addr("10.0.0.10"),
        sport: 50000_u16.to_be(),
        dport: 80_u16.to_be(),
        src_identity: 301,
        dst_identity: 300,
        dst_endpoint: 10,
        ifindex: 9,
        len: 60,
        packets: 1,
        ingress: Verdict { provenance: 0, outcome: outcome::DENY, match_type: match_type::NONE, pad: 0 },
        kind: kind::DROP,
        point: point::FROM_OVERLAY,
        reason: 133,
        proto: 6,
        tcp_flags: 2,
        direction: abi::policy::INGRESS,
        ..Event::default()
    }
}

pub(crate) fn tables() -> Writers {
    let (mut ipcache, ipcache_reader) = statedb::table("ipcache");
    ipcache.insert(ip_entry("10.0.0.10", 300, "web-1"));
    ipcache.insert(ip_entry("10.0.1.20", 301, "db-0"));
    ipcache.commit();
    let (mut nodes, nodes_reader) = statedb::table("nodes");
    nodes.insert(node("n1", "192.168.0.1", true));
    nodes.commit();
    let tables = Tables {
        ipcache: ipcache_reader,
        endpoints: filled([endpoint()]),
        pods: filled([pod()]),
        identities: filled([identity(300, "web"), identity(301, "db")]),
        frontends: filled([frontend()]),
        provenance: filled([rule(1, "let-web-in", None), rule(2, "let-web-out", Some("audited"))]),
        nodes: nodes_reader,
    };
    Writers { ipcache, nodes, tables }
}

fn filled<R: statedb::Row>(rows: impl IntoIterator<Item = R>) -> statedb::Reader<R> {
    let (mut writer, reader) = statedb::table("test");
    rows.into_iter().for_each(|row| writer.insert(row));
    writer.commit();
    reader
}

pub(crate) fn ip_entry(ip: &str, identity: u32, pod: &str) -> IpEntry {
    IpEntry {
        prefix: ip.parse::<IpAddr>().unwrap().into(),
        identity: IdentityId(identity),
        tunnel: None,
        host: None,
        node_address: false,
        no_masquerade: false,
        source: IpSource::CustomResource,
        pod: Some(MeshPod { cluster: "blue".into(), pod: PodName::new("shop", pod) }),
    }
}

pub(crate) fn node(name: &str, ip: &str, local: bool) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "blue".to_owned(),
        internal_ips: vec![ip.parse().unwrap()],
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        identity: IdentityId(6),
        local,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: EndpointId(10),
        kind: EndpointKind::Pod { name: PodName::new("shop", "web-1"), uid: String::new() },
        container_id: String::new(),
        interface: "eth0".to_owned(),
        netns: String::new(),
        netns_cookie: 4711,
        host_interface: "lxc1234".to_owned(),
        host_ifindex: 42,
        mac: Mac([2, 0, 0, 0, 0, 10]),
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        ipv4: Some("10.0.0.10".parse().unwrap()),
        ipv6: None,
    }
}

fn pod() -> Pod {
    Pod {
        name: PodName::new("shop", "web-1"),
        uid: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        service_account: "default".to_owned(),
        host_network: false,
        ips: Vec::new(),
        workload: Some(Arc::new(Workload { kind: "Deployment".to_owned(), name: "web".to_owned() })),
        named_ports: Vec::new(),
        host_ports: Vec::new(),
        ready: true,
        ended: false,
    }
}

fn identity(id: u32, app: &str) -> Identity {
    let labels: Labels = [
        Label::k8s("app", app),
        Label::k8s("io.kubernetes.pod.namespace", "shop"),
        Label::k8s("io.cilium.k8s.policy.cluster", "blue"),
    ]
    .into_iter()
    .collect();
    Identity { id: IdentityId(id), labels }
}

fn frontend() -> Frontend {
    let addr = L4Addr { ip: "10.96.0.5".parse().unwrap(), port: 5432, protocol: Protocol::Tcp };
    let service = ServiceName::new("shop", "db");
    Frontend::new(FrontendKey::external(addr), 1, service, [].into())
}

fn rule(id: u32, name: &str, log: Option<&str>) -> Provenance {
    Provenance {
        id: ProvenanceId(id),
        kind: PolicyKind::CiliumNetworkPolicy,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        labels: vec!["k8s:io.cilium.k8s.policy.name=p".to_owned()],
        rule: "ingress[0]".to_owned(),
        log: log.map(str::to_owned),
        revision: 3,
    }
}
