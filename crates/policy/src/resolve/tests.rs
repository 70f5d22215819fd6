// SPDX-License-Identifier: Apache-2.0
//! The engine against the interpreter, and against itself from scratch.

mod examples;

use super::oracle::{self, Cluster, Named, Packet, PodLabels, Remote};
use super::*;
use crate::rules::Context;
use abi::maps::Policies;
use abi::policy::{PolicyEntry, PolicyKey, decide};
use datapath::{Trie, fake};
use model::{Label, Labels, NamedPort, PodName, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestCaseResult, TestRunner};
use serde_json::Value;
use std::io::Write;
use std::net::IpAddr;

const DUAL: Families = Families { ipv4: true, ipv6: true };
const ENDPOINT: EndpointId = EndpointId(7);

/// Tries as many cases as CI is to have, from a seed that is new each time and is printed. One that failed comes again with
/// `PROPTEST_RNG_SEED=... PROPTEST_CASES=...`, the variables that proptest reads itself.
fn try_cases<S: Strategy>(name: &str, strategy: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let given = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(2_000, |_| given.cases);
    let seed = match given.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    // Past the test harness, which swallows what a test prints that succeeds.
    let replay = format!("{name}: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases}");
    writeln!(std::io::stderr(), "{replay}").unwrap();
    let config = ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..given };
    if let Err(error) = TestRunner::new(config).run(strategy, test) {
        panic!("{replay}\n{error}");
    }
}

fn identity(id: u32, labels: &PodLabels) -> Identity {
    let labels = labels.iter().map(|(key, value)| Label::k8s(key.as_str(), value.as_str())).collect();
    Identity { id: IdentityId(id), labels }
}

/// Labels of the identities from 300 on, in tests that need no others.
fn labelled(id: u32) -> Identity {
    let (app, namespace) = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")][(id - 300) as usize];
    let labels = [Label::k8s("app", app), Label::k8s(crate::labels::NAMESPACE, namespace)];
    Identity { id: IdentityId(id), labels: labels.into_iter().collect() }
}

fn named(port: &Named) -> NamedPort {
    let protocol = match port.proto {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    NamedPort { name: port.name.clone(), port: port.port, protocol }
}

/// A pod of this cluster.
fn here(pod: PodName) -> model::MeshPod {
    model::MeshPod { cluster: "default".into(), pod }
}

fn pod(number: usize, identity: u32, ports: &[Named]) -> RemoteEndpoint {
    RemoteEndpoint {
        cluster: "default".into(),
        pod: PodName::new("x", format!("pod-{number}")),
        ipv4: None,
        ipv6: None,
        identity: IdentityId(identity),
        host: None,
        named_ports: ports.iter().map(named).collect(),
    }
}

fn context(cluster: &Cluster) -> Context {
    Context {
        cluster: cluster.name.as_str().into(),
        default_local_cluster: cluster.default_local_cluster,
        sctp: cluster.sctp,
    }
}

/// The policy of an object, by the way that objects of the API take.
fn ingest(context: &Context, object: &Value) -> Arc<Policy> {
    let policy = match object["kind"].as_str().unwrap() {
        "NetworkPolicy" => crate::ingest_network_policy(context, &serde_json::from_value(object.clone()).unwrap()),
        "CiliumNetworkPolicy" => crate::ingest_cilium_policy(context, &serde_json::from_value(object.clone()).unwrap()),
        _ => crate::ingest_clusterwide_policy(context, &serde_json::from_value(object.clone()).unwrap()),
    };
    Arc::new(policy.unwrap())
}

fn ingest_group(object: &Value) -> CidrGroup {
    crate::ingest_cidr_group(&serde_json::from_value(object.clone()).unwrap()).unwrap()
}

fn engine(cluster: &Cluster) -> Engine {
    let mut engine = Engine::new(cluster.mode, Families { ipv4: cluster.ipv4, ipv6: cluster.ipv6 }, [], PolicyId(0));
    cluster.pods_before.iter().for_each(|(id, labels)| engine.upsert_identity(&identity(*id, labels)));
    engine.set_api_servers(&cluster.api_servers.iter().copied().collect(), cluster.api_server_here);
    for policy in &cluster.policies {
        engine.upsert_policy(ingest(&context(cluster), policy));
    }
    cluster.groups.iter().for_each(|group| engine.upsert_group(ingest_group(group)));
    for (number, (id, port)) in cluster.peer_ports.iter().enumerate() {
        engine.upsert_pod(&pod(number, *id, std::slice::from_ref(port)));
    }
    let own: Vec<_> = cluster.own_ports.iter().map(named).collect();
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(cluster.subject), &own), None);
    engine.settle();
    cluster.pods.iter().for_each(|(id, labels)| engine.upsert_identity(&identity(*id, labels)));
    engine.settle();
    engine
}

/// The identity that the ipcache would give; none to an address of a family that the cluster does not have.
fn peer_identity(engine: &Engine, cluster: &Cluster, remote: &Remote) -> Option<IdentityId> {
    match remote {
        Remote::Identity(id) => Some(IdentityId(*id)),
        Remote::Outside(ip) => {
            let families = Families { ipv4: cluster.ipv4, ipv6: cluster.ipv6 };
            let covering = families.defaults().chain(engine.prefixes()).filter(|(prefix, _)| prefix.contains(ip));
            let enabled = if ip.is_ipv4() { cluster.ipv4 } else { cluster.ipv6 };
            covering.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, id)| id).filter(|_| enabled)
        }
    }
}

/// What the kernel would say.
fn kernel(map: &Trie<Policies>, policy: PolicyId, peer: IdentityId, packet: &Packet) -> Option<PolicyEntry> {
    let lookup = |identity: u32| {
        let key = PolicyKey {
            policy: policy.0,
            identity,
            direction: packet.direction.number(),
            proto: packet.proto,
            port: packet.port.to_be(),
        };
        map.lookup(&key).unwrap()
    };
    let (peer, any) = (lookup(peer.0), lookup(0));
    decide(peer.as_ref(), any.as_ref()).map(|(entry, _)| *entry)
}

fn installed(row: &CompiledPolicy) -> Trie<Policies> {
    let map = fake::Kernel::new().trie::<Policies>().unwrap();
    for (key, entry) in &row.entries {
        assert_eq!(key.prefix_len, entry.prefix_len);
        map.insert(&key.of_policy(row.id), entry).unwrap();
    }
    map
}

/// The rule that an entry names is one that says so.
fn names_a_rule_that_says_so(
    engine: &Engine,
    cluster: &Cluster,
    entry: &PolicyEntry,
    packet: &Packet,
) -> TestCaseResult {
    let Some(row) = engine.provenances().find(|row| row.id.0 == entry.provenance) else {
        return Err(TestCaseError::fail(format!("{entry:?} names no rule")));
    };
    let elements = cluster.elements(Some(&row.name));
    let element = elements.iter().find(|element| element.origin == row.rule);
    prop_assert!(
        element.is_some_and(|e| cluster.speaks(e, packet) && e.deny == (entry.deny == 1)),
        "{:?} {:?}",
        row,
        packet
    );
    Ok(())
}

#[test]
fn the_kernel_decides_as_the_objects_read() {
    let cases = (oracle::cluster(), prop::collection::vec(oracle::packet(), 1..40));
    try_cases("the_kernel_decides_as_the_objects_read", &cases, |(cluster, packets)| {
        let engine = engine(&cluster);
        let row = engine.policy_of(ENDPOINT).unwrap();
        let map = installed(&row);
        for packet in packets {
            let Some(peer) = peer_identity(&engine, &cluster, &packet.remote) else { continue };
            let entry = kernel(&map, row.id, peer, &packet);
            let allowed = entry.is_some_and(|entry| entry.deny == 0);
            prop_assert_eq!(allowed, cluster.allows(&packet), "{:?} {:#?}", packet, row);
            prop_assert_eq!(row.allows(packet.direction, peer, packet.proto, packet.port), allowed, "{:?}", packet);
            if let Some(entry) = entry.filter(|entry| entry.provenance != 0) {
                names_a_rule_that_says_so(&engine, &cluster, &entry, &packet)?;
            }
            let enforced =
                if packet.direction == Direction::Ingress { row.ingress_enforced } else { row.egress_enforced };
            prop_assert!(enforced || allowed);
        }
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Step {
    Policy(Value),
    NoPolicy(usize),
    Identity(u32, PodLabels),
    NoIdentity(u32),
    Group(Value),
    NoGroup(&'static str),
    ApiServers(Vec<IpAddr>, bool),
    Pod(usize, u32, Vec<Named>),
    NoPod(usize),
    Attach(u16, u32, Vec<Named>),
    Detach(u16),
    Settle,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || 300u32..304;
    let ports = || prop::collection::vec(oracle::named_port(), 0..3);
    prop_oneof![
        4 => prop_oneof![oracle::policy(0), oracle::policy(1), oracle::policy(2)].prop_map(Step::Policy),
        2 => (0usize..3).prop_map(Step::NoPolicy),
        4 => (ids(), oracle::pod()).prop_map(|(id, labels)| Step::Identity(id, labels)),
        2 => ids().prop_map(Step::NoIdentity),
        1 => prop_oneof![oracle::cidr_group("g"), oracle::cidr_group("h")].prop_map(Step::Group),
        1 => prop::sample::select(vec!["g", "h"]).prop_map(Step::NoGroup),
        1 => (oracle::api_servers(), any::<bool>()).prop_map(|(servers, here)| Step::ApiServers(servers, here)),
        1 => (0usize..3, ids(), ports()).prop_map(|(n, id, ports)| Step::Pod(n, id, ports)),
        1 => (0usize..3).prop_map(Step::NoPod),
        3 => (1u16..4, ids(), ports()).prop_map(|(e, id, ports)| Step::Attach(e, id, ports)),
        1 => (1u16..4).prop_map(Step::Detach),
        3 => Just(Step::Settle),
        1 => Just(Step::Collect),
    ]
}

fn policy_name(number: usize) -> PolicyName {
    let kind = model::PolicyKind::CiliumClusterwideNetworkPolicy;
    PolicyName { kind, namespace: "".into(), name: format!("p{number}").into() }
}

/// Compiled policies without what may differ: their numbers, and the numbers of prefixes.
fn comparable(engine: &Engine) -> Vec<(IdentityId, bool, bool, Vec<String>)> {
    let prefixes: BTreeMap<_, _> = engine.prefixes().map(|(prefix, id)| (id, prefix.to_string())).collect();
    let row = |row: CompiledPolicy| {
        let name = |id: IdentityId| prefixes.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let mut entries: Vec<_> = row
            .entries
            .iter()
            .map(|(key, entry)| format!("{} {:?}", name(key.peer), (EntryKey { peer: ANY, ..*key }, entry)))
            .collect();
        entries.sort();
        (row.identity, row.ingress_enforced, row.egress_enforced, entries)
    };
    engine.compiled().map(row).collect()
}

/// What is there after all steps.
#[derive(Default)]
struct Present {
    policies: BTreeMap<usize, Arc<Policy>>,
    identities: BTreeMap<u32, Labels>,
    groups: BTreeMap<Arc<str>, CidrGroup>,
    api_servers: (BTreeSet<IpAddr>, bool),
    pods: BTreeMap<usize, RemoteEndpoint>,
    endpoints: BTreeMap<u16, SubjectKey>,
}

impl Present {
    fn apply(&mut self, engine: &mut Engine, step: Step) {
        match step {
            Step::Policy(object) => {
                let policy =
                    ingest(&Context { cluster: "home".into(), default_local_cluster: true, sctp: true }, &object);
                let number = policy.name.name[1..].parse().unwrap();
                engine.upsert_policy(policy.clone());
                // Another kind of that name is another object: it goes first.
                if let Some(old) = self.policies.insert(number, policy.clone()).filter(|old| old.name != policy.name) {
                    engine.remove_policy(&old.name);
                }
            }
            Step::NoPolicy(number) => {
                if let Some(old) = self.policies.remove(&number) {
                    engine.remove_policy(&old.name);
                }
            }
            Step::Identity(id, labels) => {
                engine.upsert_identity(&identity(id, &labels));
                self.identities.insert(id, identity(id, &labels).labels);
            }
            Step::NoIdentity(id) => {
                engine.remove_identity(IdentityId(id));
                if !self.endpoints.values().any(|key| key.identity.0 == id) {
                    self.identities.remove(&id);
                }
            }
            Step::Group(object) => {
                let group = ingest_group(&object);
                engine.upsert_group(group.clone());
                self.groups.insert(group.name.clone(), group);
            }
            Step::NoGroup(name) => {
                engine.remove_group(name);
                self.groups.remove(name);
            }
            Step::ApiServers(servers, here) => {
                self.api_servers = (servers.into_iter().collect(), here);
                engine.set_api_servers(&self.api_servers.0, here);
            }
            Step::Pod(number, id, ports) => {
                engine.upsert_pod(&pod(number, id, &ports));
                self.pods.insert(number, pod(number, id, &ports));
            }
            Step::NoPod(number) => {
                engine.remove_pod(&here(PodName::new("x", format!("pod-{number}"))));
                self.pods.remove(&number);
            }
            Step::Attach(endpoint, id, ports) => {
                let labels = self.identities.entry(id).or_insert_with(|| labelled(id).labels).clone();
                engine.upsert_identity(&Identity { id: IdentityId(id), labels });
                let key = SubjectKey::new(IdentityId(id), &ports.iter().map(named).collect::<Vec<_>>());
                engine.attach(EndpointId(endpoint), key.clone(), None);
                self.endpoints.insert(endpoint, key);
            }
            Step::Detach(endpoint) => {
                engine.detach(EndpointId(endpoint));
                self.endpoints.remove(&endpoint);
            }
            Step::Settle => drop(engine.settle()),
            Step::Collect => engine.collect_prefixes(),
        }
    }

    fn built_at_once(self) -> Engine {
        let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
        self.endpoints.into_iter().for_each(|(endpoint, key)| engine.attach(EndpointId(endpoint), key, None));
        self.pods.values().for_each(|pod| engine.upsert_pod(pod));
        let identities = self.identities.into_iter().map(|(id, labels)| Identity { id: IdentityId(id), labels });
        identities.for_each(|identity| engine.upsert_identity(&identity));
        self.groups.into_values().for_each(|group| engine.upsert_group(group));
        self.policies.into_values().rev().for_each(|policy| engine.upsert_policy(policy));
        engine.set_api_servers(&self.api_servers.0, self.api_servers.1);
        engine.settle();
        engine
    }
}

#[test]
fn step_by_step_gives_what_all_at_once_gives() {
    let steps = prop::collection::vec(step(), 1..40);
    try_cases("step_by_step_gives_what_all_at_once_gives", &steps, |steps| {
        let (mut engine, mut present) = (Engine::new(Enforcement::Default, DUAL, [], PolicyId(0)), Present::default());
        for step in steps {
            present.apply(&mut engine, step);
        }
        engine.collect_prefixes();
        engine.settle();
        prop_assert_eq!(comparable(&engine), comparable(&present.built_at_once()));
        Ok(())
    });
}
