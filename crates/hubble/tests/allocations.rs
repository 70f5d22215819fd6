// SPDX-License-Identifier: Apache-2.0
//! What an event costs: taking it in allocates nothing, since nodes see many and mostly nobody looks; and while it is kept it keeps
//! alive the rows that name it, not the tables they came from.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "tests")]

use abi::event::{Event, SocketEvent, Verdict, kind, outcome, translation};
use abi::policy::match_type;
use hubble::{Config, Inputs, Outputs, Tables, start};
use model::{
    Backend, BackendId, BackendState, Endpoint, EndpointId, EndpointKind, Frontend, FrontendKey, Identity, IdentityId,
    IpEntry, IpSource, L4Addr, Label, Mac, MeshPod, Node, Pod, PodName, PolicyKind, Protocol, Provenance, ProvenanceId,
    ServiceName, Workload,
};
use statedb::{Reader, Row, Tasks, Writer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use tokio_util::sync::CancellationToken;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counters are plain cells of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let _ = LIVE.try_with(|live| live.set(live.get().wrapping_add(layout.size())));
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let _ = LIVE.try_with(|live| live.set(live.get().wrapping_sub(layout.size())));
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PODS: u32 = 2000;

/// A node with pods and a Service, and flows from the endpoint 1 to that Service.
struct World {
    ipcache: Writer<IpEntry>,
    frontends: Writer<Frontend>,
    pods: Writer<Pod>,
    outputs: Outputs,
    _dir: tempfile::TempDir,
    _tasks: Tasks,
}

impl World {
    fn start(capacity: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            enabled: true,
            capacity: hubble::Capacity(capacity),
            socket: dir.path().join("hubble.sock"),
            ..Config::default()
        };
        let (ipcache, ipcache_reader) = filled((0..PODS).map(|n| entry(n, 0)));
        let (frontends, frontends_reader) = filled([frontend(0)]);
        let (pods, pods_reader) = filled([pod(0)]);
        let tables = Tables {
            ipcache: ipcache_reader,
            endpoints: filled([endpoint()]).1,
            pods: pods_reader,
            identities: filled([identity(300), identity(301)]).1,
            frontends: frontends_reader,
            provenance: filled([rule(1), rule(2)]).1,
            nodes: filled([node()]).1,
        };
        let tasks = Tasks::new(CancellationToken::new());
        let outputs = start(config, Inputs { node_name: "n1".to_owned(), tables }, &tasks);
        Self { ipcache, frontends, pods, outputs, _dir: dir, _tasks: tasks }
    }
}

fn filled<R: Row>(rows: impl IntoIterator<Item = R>) -> (Writer<R>, Reader<R>) {
    let (mut writer, reader) = statedb::table("test");
    rows.into_iter().for_each(|row| writer.insert(row));
    writer.commit();
    (writer, reader)
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

fn entry(n: u32, generation: u32) -> IpEntry {
    IpEntry {
        prefix: address(n).into(),
        identity: IdentityId(1000 + generation),
        tunnel: Some("192.168.1.1".parse().unwrap()),
        host: Some("192.168.1.1".parse().unwrap()),
        node_address: false,
        no_masquerade: false,
        source: IpSource::CustomResource,
        pod: Some(MeshPod {
            cluster: "default".into(),
            pod: PodName::new("some-namespace", format!("deployment-5f7d8c9b6d-{n:05}-{generation}")),
        }),
    }
}

/// A Service with as many backends as there are pods.
fn frontend(generation: u16) -> Frontend {
    let backend = |n| {
        let addr = L4Addr { ip: address(n), port: 1024 + generation, protocol: Protocol::Tcp };
        Backend::new(BackendId(n), addr, BackendState::Active)
    };
    let addr = L4Addr { ip: "10.96.0.5".parse().unwrap(), port: 5432, protocol: Protocol::Tcp };
    let service = ServiceName::new("shop", "db");
    Frontend::new(FrontendKey::external(addr), 1, service, (0..PODS).map(backend).collect())
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: EndpointId(1),
        kind: EndpointKind::Pod { name: PodName::new("shop", "web-1"), uid: String::new() },
        container_id: String::new(),
        interface: "eth0".to_owned(),
        netns: String::new(),
        netns_cookie: 7,
        host_interface: "lxc1234".to_owned(),
        host_ifindex: 42,
        mac: Mac([2, 0, 0, 0, 0, 10]),
        host_mac: Mac([2, 0, 0, 0, 0, 1]),
        ipv4: Some("10.0.0.1".parse().unwrap()),
        ipv6: None,
    }
}

/// A pod with much that no flow shows.
fn pod(generation: u32) -> Pod {
    Pod {
        name: PodName::new("shop", "web-1"),
        uid: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([("cilium.io/note".to_owned(), generation.to_string().repeat(4096))]),
        service_account: "default".to_owned(),
        host_network: false,
        ips: Vec::new(),
        workload: Some(Workload { kind: "Deployment".to_owned(), name: "web".to_owned() }.into()),
        named_ports: Vec::new(),
        host_ports: Vec::new(),
        ready: true,
        ended: false,
    }
}

fn identity(id: u32) -> Identity {
    Identity { id: IdentityId(id), labels: [Label::k8s("io.kubernetes.pod.namespace", "shop")].into_iter().collect() }
}

fn rule(id: u32) -> Provenance {
    Provenance {
        id: ProvenanceId(id),
        kind: PolicyKind::CiliumNetworkPolicy,
        namespace: "shop".to_owned(),
        name: "rule".to_owned(),
        labels: Vec::new(),
        rule: "ingress[0]".to_owned(),
        log: None,
        revision: 1,
    }
}

fn node() -> Node {
    Node {
        name: "n1".to_owned(),
        cluster: "blue".to_owned(),
        internal_ips: vec!["192.168.0.1".parse().unwrap()],
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        identity: IdentityId(6),
        local: true,
    }
}

/// An event of which every name is known: from the local pod to another one, through the Service, allowed by two rules.
fn event(destination: u32) -> Event {
    let verdict = |provenance| Verdict {
        provenance,
        outcome: outcome::ALLOW,
        match_type: match_type::L3_L4,
        ..Default::default()
    };
    Event {
        src: "10.0.0.1".parse::<IpAddr>().unwrap().into(),
        dst: address(destination).into(),
        dst_orig: "10.96.0.5".parse::<IpAddr>().unwrap().into(),
        dport: 5432_u16.to_be(),
        src_identity: 300,
        dst_identity: 301,
        src_endpoint: 1,
        egress: verdict(1),
        ingress: verdict(2),
        kind: kind::TRACE,
        proto: 6,
        ..Default::default()
    }
}

/// The pod connects to the Service.
fn socket(destination: u32) -> Event {
    let socket = SocketEvent {
        dst: address(destination).into(),
        dst_orig: "10.96.0.5".parse::<IpAddr>().unwrap().into(),
        dport_orig: 5432_u16.to_be(),
        netns: 7,
        kind: kind::TRACE_SOCK,
        point: translation::FORWARD,
        proto: 6,
        ..SocketEvent::default()
    };
    socket.into()
}

#[tokio::test]
async fn an_event_is_taken_in_without_an_allocation() {
    let world = World::start(4095);
    let reserved = Event { src_identity: 1, dst_identity: 2, ..Default::default() };
    // The first event of an identity may make room for it.
    [event(7), socket(7), reserved].iter().for_each(|event| world.outputs.sink.push(event));
    let before = COUNT.with(Cell::get);
    // More than the ring holds, so that old events are overwritten, too.
    for n in 0..10_000 {
        world.outputs.sink.push(&event(n % PODS));
        world.outputs.sink.push(&socket(n % PODS));
        world.outputs.sink.push(&reserved);
    }
    assert_eq!(COUNT.with(Cell::get) - before, 0);
    assert_eq!(world.outputs.status.figures().unwrap().current, 4095);
}

#[tokio::test]
async fn kept_events_keep_their_names_and_not_the_tables() {
    const EVENTS: u16 = 255;
    let mut world = World::start(EVENTS);
    let mut changed = 0;
    let mut burst = |world: &mut World, round: u32| {
        for _ in 0..200 {
            changed = (changed + 7919) % PODS;
            world.ipcache.insert(entry(changed, round));
        }
        world.ipcache.commit();
        world.frontends.insert(frontend(u16::from(round.is_multiple_of(2))));
        world.frontends.commit();
        world.pods.insert(pod(round));
        world.pods.commit();
        // Its name was just changed, so that the event is the last to know it.
        world.outputs.sink.push(&event(changed));
    };
    burst(&mut world, 0);
    let before = LIVE.with(Cell::get);
    (1..=u32::from(EVENTS)).for_each(|round| burst(&mut world, round));
    let kept = LIVE.with(Cell::get).saturating_sub(before) / usize::from(EVENTS);
    assert!(kept < 512, "{kept} bytes are kept alive by each of {EVENTS} events");
}
