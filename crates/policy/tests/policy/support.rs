// SPDX-License-Identifier: Apache-2.0
//! A node with the feature running on a kernel in memory and an API server in memory.

use datapath::{Epochs, Kernel, MapSpec, RawMap, fake};
use model::{
    Endpoint, EndpointId, EndpointKind, EndpointPolicy, Identity, IdentityId, Labels, LocalNode, Mac, NamedPort,
    Namespace, Node, Pod, PodName, RemoteEndpoint, RoutingMode,
};
use parking_lot::Mutex;
use policy::{CidrGroup, Config, Created, IdentityStore, Inputs, Outputs, Policy, StoreError, StoreErrorKind};
use statedb::{Tasks, Writer, table};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A kernel that counts writes.
#[derive(Clone, Debug, Default)]
pub struct Counting {
    pub inner: fake::Kernel,
    pub writes: Arc<AtomicUsize>,
}

impl Counting {
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }
}

impl Kernel for Counting {
    fn open(&self, spec: MapSpec) -> datapath::Result<Arc<dyn RawMap>> {
        Ok(Arc::new(CountingMap { map: Kernel::open(&self.inner, spec)?, writes: self.writes.clone() }))
    }
}

#[derive(Debug)]
struct CountingMap {
    map: Arc<dyn RawMap>,
    writes: Arc<AtomicUsize>,
}

impl RawMap for CountingMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.map.lookup(key, value)
    }
    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.map.update(key, value)
    }
    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.map.delete(key)
    }
    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        self.map.entries()
    }
    fn capacity(&self) -> u32 {
        self.map.capacity()
    }
    fn values_per_entry(&self) -> usize {
        self.map.values_per_entry()
    }
}

/// The API server's identities.
#[derive(Clone, Default)]
pub struct Store {
    pub made: Arc<Mutex<BTreeMap<IdentityId, Labels>>>,
    pub away: Arc<Mutex<bool>>,
    /// Whether it refuses everything for good.
    pub refuses: Arc<Mutex<bool>>,
    /// How long the answer takes to what is done at once.
    pub answers_after: Arc<Mutex<Duration>>,
}

impl IdentityStore for Store {
    async fn create(&self, identity: &Identity) -> Result<Created, StoreError> {
        let permanent = *self.refuses.lock();
        if *self.away.lock() || permanent {
            let kind = if permanent { StoreErrorKind::Permanent } else { StoreErrorKind::Unavailable };
            return Err(StoreError { id: identity.id, reason: "connection refused".into(), kind });
        }
        let there = self.made.lock().entry(identity.id).or_insert_with(|| identity.labels.clone()).clone();
        let answers_after = *self.answers_after.lock();
        tokio::time::sleep(answers_after).await;
        Ok(if there == identity.labels { Created::Done } else { Created::Taken })
    }
}

/// Everything that others would write.
pub struct Tables {
    pub endpoints: Writer<Endpoint>,
    pub pods: Writer<Pod>,
    pub namespaces: Writer<Namespace>,
    pub identities: Writer<Identity>,
    pub remote_endpoints: Writer<RemoteEndpoint>,
    pub nodes: Writer<Node>,
    pub local_node: Writer<LocalNode>,
    pub network_policies: Writer<Policy>,
    pub cilium_policies: Writer<Policy>,
    pub clusterwide_policies: Writer<Policy>,
    pub cidr_groups: Writer<CidrGroup>,
    pub api_servers: Writer<policy::ApiServers>,
}

impl Default for Tables {
    fn default() -> Self {
        let mut local_node = table("local-node").0;
        local_node.insert(LocalNode {
            name: "node1".into(),
            ipv4: Some("192.168.77.11".parse().unwrap()),
            ipv6: Some("fd77::11".parse().unwrap()),
            addresses: vec!["192.168.77.11".parse().unwrap()],
            router_ipv4: None,
            router_ipv6: None,
            pod_cidrs: vec![],
            devices: vec![],
            device_mtu: 1500,
            route_mtu: 1450,
            routing: RoutingMode::Tunnel,
        });
        Self {
            endpoints: table("endpoints").0,
            pods: table("pods").0,
            namespaces: table("namespaces").0,
            identities: table("k8s-identities").0,
            remote_endpoints: table("remote-endpoints").0,
            nodes: table("nodes").0,
            local_node,
            network_policies: table("network-policies").0,
            cilium_policies: table("cilium-policies").0,
            clusterwide_policies: table("clusterwide-policies").0,
            cidr_groups: table("cidr-groups").0,
            api_servers: table("api-servers").0,
        }
    }
}

impl Tables {
    pub fn commit(&mut self) {
        self.endpoints.commit();
        self.pods.commit();
        self.namespaces.commit();
        self.identities.commit();
        self.remote_endpoints.commit();
        self.nodes.commit();
        self.local_node.commit();
        self.network_policies.commit();
        self.cilium_policies.commit();
        self.clusterwide_policies.commit();
        self.cidr_groups.commit();
        self.api_servers.commit();
    }

    pub fn mark_initialized(&mut self) {
        self.endpoints.mark_initialized();
        self.pods.mark_initialized();
        self.namespaces.mark_initialized();
        self.identities.mark_initialized();
        self.remote_endpoints.mark_initialized();
        self.nodes.mark_initialized();
        self.local_node.mark_initialized();
        self.network_policies.mark_initialized();
        self.cilium_policies.mark_initialized();
        self.clusterwide_policies.mark_initialized();
        self.cidr_groups.mark_initialized();
        self.api_servers.mark_initialized();
    }

    /// A pod of this node with its namespace and its interface.
    pub fn add_pod(&mut self, id: u16, name: &str, labels: &[(&str, &str)], ports: Vec<NamedPort>) {
        let (namespace, pod) = name.split_once('/').unwrap();
        self.namespaces.insert(Namespace { name: namespace.into(), labels: BTreeMap::new() });
        self.pods.insert(Pod {
            name: PodName::new(namespace, pod),
            uid: format!("uid-{id}"),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: BTreeMap::new(),
            service_account: "default".into(),
            host_network: false,
            ips: vec![],
            workload: None,
            named_ports: ports,
            host_ports: vec![],
            ready: true,
            ended: false,
        });
        self.endpoints.insert(Endpoint {
            kind: EndpointKind::Pod { name: PodName::new(namespace, pod), uid: format!("uid-{id}") },
            ..interface(id)
        });
    }

    /// The health endpoint of this node.
    pub fn add_health_endpoint(&mut self, id: u16) {
        self.endpoints.insert(interface(id));
    }
}

fn interface(id: u16) -> Endpoint {
    Endpoint {
        id: EndpointId(id),
        kind: EndpointKind::Health,
        container_id: String::new(),
        interface: "eth0".into(),
        netns: String::new(),
        netns_cookie: 0,
        host_interface: format!("lxc{id}"),
        host_ifindex: u32::from(id),
        mac: Mac::default(),
        host_mac: Mac::default(),
        ipv4: format!("10.0.1.{id}").parse().ok(),
        ipv6: None,
    }
}

/// A running feature.
pub struct Agent {
    pub outputs: Outputs,
    pub ipcache: ipcache::Ipcache,
    pub epochs: Epochs,
    pub warnings: k8s::WarningQueue,
    tasks: Tasks,
}

pub fn start<K: Kernel + 'static>(config: Config, kernel: K, store: Store, tables: &Tables) -> Agent {
    let kernel: Arc<dyn Kernel> = Arc::new(kernel);
    let epochs = Epochs::open(&kernel).unwrap();
    let tasks = Tasks::new(CancellationToken::new());
    let (warnings, told) = k8s::Warnings::channel();
    let attempt = || {
        let (addresses, of_policy) = table("policy-addresses");
        let writers = ipcache::Inputs { kernel: kernel.clone(), epochs: epochs.clone(), writers: vec![of_policy] };
        let ipcache = ipcache::start(writers, &tasks)?;
        let inputs = Inputs {
            kernel: kernel.clone(),
            epochs: epochs.clone(),
            addresses,
            ipcache: ipcache.clone(),
            identity_store: store.clone(),
            endpoints: tables.endpoints.reader(),
            pods: tables.pods.reader(),
            namespaces: tables.namespaces.reader(),
            cilium_namespace: "kube-system".into(),
            identities: tables.identities.reader(),
            remote_endpoints: tables.remote_endpoints.reader(),
            nodes: tables.nodes.reader(),
            local_node: tables.local_node.reader(),
            network_policies: Some(tables.network_policies.reader()),
            cilium_policies: tables.cilium_policies.reader(),
            clusterwide_policies: tables.clusterwide_policies.reader(),
            cidr_groups: tables.cidr_groups.reader(),
            api_servers: tables.api_servers.reader(),
            warnings: warnings.clone(),
        };
        policy::start(config.clone(), inputs, &tasks).map(|outputs| (outputs, ipcache))
    };
    let (outputs, ipcache) = (0..1000).find_map(|_| attempt().ok()).expect("the maps open at some time");
    Agent { outputs, ipcache, epochs, warnings: told, tasks }
}

impl Agent {
    /// Ends it as a kill would: the kernel keeps its state.
    pub async fn kill(self) {
        self.tasks.token().cancel();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.tasks.run_until_failure()).await.unwrap();
    }

    /// The row of a pod once it satisfies the condition.
    pub async fn policy_of(&self, id: u16, wanted: impl Fn(&EndpointPolicy) -> bool) -> Arc<EndpointPolicy> {
        let rows = &self.outputs.endpoint_policies;
        eventually("the pod's policy", || rows.snapshot().get(&EndpointId(id)).filter(|row| wanted(row))).await
    }

    /// The lines of a pod's policy, without labels that all pods of a namespace have.
    pub fn lines(&self, id: u16) -> Vec<String> {
        let lines = self.outputs.policy_lines(EndpointId(id)).unwrap_or_default();
        let mut lines: Vec<_> = lines.iter().map(|line| compact(&line.to_string())).collect();
        lines.sort();
        lines
    }

    /// Waits until the lines of a pod's policy are these.
    pub async fn expect_lines(&self, id: u16, wanted: &[&str]) {
        let what = format!("policy of {id} to be {wanted:#?}");
        eventually(&what, || (self.lines(id) == wanted).then_some(())).await;
    }
}

/// Drops what says nothing in a test with one cluster.
pub fn compact(line: &str) -> String {
    let noise = |label: &&str| {
        !label.starts_with("k8s:io.cilium.k8s.policy.") && !label.contains("kubernetes.io/metadata.name=")
    };
    let word = |word: &str| word.split(',').filter(noise).collect::<Vec<_>>().join(",");
    line.split(' ')
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
        .replace("k8s:io.kubernetes.pod.namespace", "ns")
        .replace("k8s:", "")
}

/// Looks again and again, with a deadline.
pub async fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(20), what, look).await
}

/// The same for what takes minutes on a paused clock.
pub async fn later<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(600), what, look).await
}

async fn within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + time;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
