// SPDX-License-Identifier: Apache-2.0
//! What a big cluster costs: memory per pod, and work per change. `CILIUM_SCALE=100000 cargo test -p policy --test scale --
//! --nocapture` prints figures for that many pods.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(unreachable_pub, dead_code, reason = "the support of other tests")]

#[path = "policy/support.rs"]
mod support;

use model::{IdentityId, LocalNode, Node, PodName, RemoteEndpoint, reserved};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use support::{Agent, Counting, Store, Tables, eventually, start};

struct Tally;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counters are plain cells of this thread.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LIVE.try_with(|live| {
            live.set(live.get().wrapping_add(layout.size()));
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        });
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
static ALLOCATOR: Tally = Tally;

/// Pods of a node.
const DENSITY: u32 = 20;
/// Changes of which the average is printed.
const CHANGES: u32 = 100;

fn pods() -> u32 {
    std::env::var("CILIUM_SCALE").map_or(4000, |text| text.parse().expect("CILIUM_SCALE is a number"))
}

fn node_address(node: u32) -> IpAddr {
    Ipv4Addr::from(0xac10_0000 + node).into()
}

fn pod_address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + pod)
}

fn node(number: u32) -> Node {
    Node {
        name: format!("node-{number:05}"),
        cluster: "default".into(),
        internal_ips: vec![node_address(number)],
        external_ips: vec![],
        cilium_internal_ips: vec![],
        health_ips: vec![],
        pod_cidrs: vec![],
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: false,
    }
}

fn pod(number: u32, identity: u32) -> RemoteEndpoint {
    RemoteEndpoint {
        cluster: "default".into(),
        pod: PodName::new("shop", format!("deployment-5f7d8c9b6d-{number:06}")),
        ipv4: Some(pod_address(number)),
        ipv6: None,
        identity: IdentityId(identity),
        host: Some(node_address(number / DENSITY)),
        named_ports: vec![],
    }
}

struct World {
    tables: Tables,
    kernel: Counting,
    agent: Agent,
}

impl World {
    /// With that many pods, once all are in the kernel.
    async fn start(pods: u32) -> Self {
        let mut tables = Tables::default();
        (0..=pods / DENSITY).for_each(|number| tables.nodes.insert(node(number)));
        (0..pods).for_each(|number| tables.remote_endpoints.insert(pod(number, 1000 + number % 500)));
        tables.commit();
        tables.mark_initialized();
        let kernel = Counting::default();
        let agent = start(policy::Config::default(), kernel.clone(), Store::default(), &tables);
        let world = Self { tables, kernel, agent };
        world.settled(pods - 1, 1000 + (pods - 1) % 500).await;
        world
    }

    /// Waits until the kernel knows a pod by that identity.
    async fn settled(&self, pod: u32, identity: u32) {
        let (entries, prefix) = (&self.agent.ipcache.entries, IpAddr::from(pod_address(pod)).into());
        let known = || entries.snapshot().get(&prefix).filter(|entry| entry.identity == IdentityId(identity));
        eventually("the pod's identity", || known().map(drop)).await;
        self.agent.ipcache.attempted().await;
    }

    async fn change(&mut self, number: u32, identity: u32) {
        self.tables.remote_endpoints.insert(pod(number, identity));
        self.tables.remote_endpoints.commit();
        self.settled(number, identity).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is printed")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_pod_elsewhere_costs_little_memory() {
    let pods = pods();
    let (before, begin) = (LIVE.get(), now());
    PEAK.set(before);
    let world = World::start(pods).await;
    let took = begin.elapsed();
    let tables: usize = world.tables.remote_endpoints.snapshot().len();
    assert_eq!(tables, pods as usize);
    let each = |bytes: usize| (bytes - before) / pods as usize;
    println!("{pods} pods in {took:.2?}: {} bytes each, at most {}", each(LIVE.get()), each(PEAK.get()));
    assert!(each(LIVE.get()) < 2500, "{} bytes for each of {pods} pods", each(LIVE.get()));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_pod_or_node_is_not_work_for_the_others() {
    let pods = pods();
    let mut world = World::start(pods).await;
    let (before, begin) = (world.kernel.writes(), now());
    for number in 0..CHANGES {
        world.change(number * (pods / CHANGES), 2000).await;
    }
    println!("a change among {pods} pods takes {:.2?}", begin.elapsed() / CHANGES);
    // Entry and epochs.
    let each = (world.kernel.writes() - before) / CHANGES as usize;
    assert!(each <= 4, "{each} writes per change");

    let (before, begin) = (world.kernel.writes(), now());
    world.tables.nodes.remove(&statedb::Row::key(&node(0)));
    world.tables.nodes.commit();
    tokio::time::sleep(Duration::from_secs(60)).await;
    println!("a node that goes, among {pods} pods, takes {:.2?}", begin.elapsed());
    let writes = world.kernel.writes() - before;
    assert!(writes <= 8 * DENSITY as usize, "{writes} writes for a node of {DENSITY} pods");

    let local = world.tables.local_node.snapshot().get(&()).unwrap();
    let begin = now();
    let addresses = vec!["192.168.77.11".parse().unwrap(), "192.168.78.11".parse().unwrap()];
    world.tables.local_node.insert(LocalNode { addresses, ..LocalNode::clone(&local) });
    world.tables.local_node.commit();
    tokio::time::sleep(Duration::from_secs(60)).await;
    println!("a new address of this node, among {pods} pods, takes {:.2?}", begin.elapsed());
}
