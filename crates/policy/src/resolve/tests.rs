// SPDX-License-Identifier: Apache-2.0
//! The engine against the interpreter, and against itself from scratch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use super::oracle::{self, Cluster, Packet, Remote, pod_labels};
use super::*;
use crate::rules::Statement as RuleStatement;
use abi::maps::Policies;
use abi::policy::{PolicyEntry, PolicyKey, decide};
use datapath::{Trie, fake};
use model::{NamedPort, PodName};
use proptest::prelude::*;
use std::net::IpAddr;

const DUAL: Families = Families { ipv4: true, ipv6: true };
const ENDPOINT: EndpointId = EndpointId(7);

fn identity(id: u32) -> Identity {
    Identity { id: IdentityId(id), labels: pod_labels(id) }
}

fn pod(number: usize, identity: u32, port: &NamedPort) -> RemoteEndpoint {
    RemoteEndpoint {
        pod: PodName::new("x", format!("pod-{number}")),
        ipv4: None,
        ipv6: None,
        identity: IdentityId(identity),
        host: None,
        named_ports: vec![port.clone()],
    }
}

fn engine(cluster: &Cluster, subject: u32) -> Engine {
    let mut engine = Engine::new(cluster.mode, DUAL, [], PolicyId(0));
    (300..304).for_each(|id| engine.upsert_identity(&identity(id)));
    for policy in &cluster.policies {
        engine.upsert_policy(Arc::new(policy.clone()));
    }
    for group in &cluster.groups {
        engine.upsert_group(group.clone());
    }
    for (number, (id, port)) in cluster.peer_ports.iter().enumerate() {
        engine.upsert_pod(&pod(number, *id, port));
    }
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(subject), &cluster.own_ports), None);
    engine.settle();
    engine
}

/// The identity that the ipcache would give.
fn peer_identity(engine: &Engine, remote: &Remote) -> IdentityId {
    match remote {
        Remote::Pod(id) => IdentityId(*id),
        Remote::Host => reserved::HOST,
        Remote::Outside(ip) => of_address(engine, *ip),
    }
}

fn of_address(engine: &Engine, ip: IpAddr) -> IdentityId {
    let covering = DUAL.defaults().chain(engine.prefixes()).filter(|(prefix, _)| prefix.contains(&ip));
    covering.max_by_key(|(prefix, _)| prefix.prefix_len()).unwrap().1
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

fn statement_of<'a>(engine: &Engine, cluster: &'a Cluster, id: u32) -> &'a RuleStatement {
    let row = engine.provenances().find(|p| p.id.0 == id).expect("provenance");
    let policy = cluster.policies.iter().find(|p| *p.name.name == *row.name).unwrap();
    policy.rules.iter().flat_map(|r| &r.statements).find(|s| s.origin == row.rule).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_kernel_decides_as_the_rules_read(
        cluster in oracle::cluster(), subject in 300u32..304, packets in prop::collection::vec(oracle::packet(), 1..40)
    ) {
        let engine = engine(&cluster, subject);
        let row = engine.policy_of(ENDPOINT).unwrap();
        let map = installed(&row);
        for packet in packets {
            let peer = peer_identity(&engine, &packet.remote);
            let entry = kernel(&map, row.id, peer, &packet);
            let allowed = entry.is_some_and(|entry| entry.deny == 0);
            prop_assert_eq!(allowed, cluster.allows(&pod_labels(subject), &packet), "{:?} {:#?}", packet, row);
            // The rule that the entry names is one that says so.
            if let Some(entry) = entry.filter(|entry| entry.provenance != 0) {
                let statement = statement_of(&engine, &cluster, entry.provenance);
                prop_assert!(cluster.speaks(statement, &packet));
                prop_assert_eq!(statement.effect == Effect::Deny, entry.deny == 1);
            }
            let enforced = if packet.direction == Direction::Ingress { row.ingress_enforced } else { row.egress_enforced };
            prop_assert!(enforced || allowed);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Policy(Policy),
    NoPolicy(usize),
    Identity(u32),
    NoIdentity(u32),
    Group(CidrGroup),
    NoGroup,
    Pod(usize, u32, NamedPort),
    NoPod(usize),
    Attach(u16, u32),
    Detach(u16),
    Settle,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![oracle::policy(0), oracle::policy(1), oracle::policy(2)].prop_map(Step::Policy),
        2 => (0usize..3).prop_map(Step::NoPolicy),
        3 => (300u32..304).prop_map(Step::Identity),
        2 => (300u32..304).prop_map(Step::NoIdentity),
        1 => oracle::group().prop_map(Step::Group),
        1 => Just(Step::NoGroup),
        1 => (0usize..3, 300u32..304, prop::sample::select(vec![7u16, 80])).prop_map(|(n, id, p)| Step::Pod(n, id, oracle::http(p))),
        1 => (0usize..3).prop_map(Step::NoPod),
        3 => (1u16..4, 300u32..304).prop_map(|(e, id)| Step::Attach(e, id)),
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
    policies: BTreeMap<PolicyName, Policy>,
    identities: BTreeSet<u32>,
    group: Option<CidrGroup>,
    pods: BTreeMap<usize, RemoteEndpoint>,
    endpoints: BTreeMap<u16, u32>,
}

impl Present {
    fn apply(&mut self, engine: &mut Engine, step: Step) {
        match step {
            Step::Policy(policy) => {
                engine.upsert_policy(Arc::new(policy.clone()));
                self.policies.insert(policy.name.clone(), policy);
            }
            Step::NoPolicy(number) => {
                engine.remove_policy(&policy_name(number));
                self.policies.remove(&policy_name(number));
            }
            Step::Identity(id) => {
                engine.upsert_identity(&identity(id));
                self.identities.insert(id);
            }
            Step::NoIdentity(id) => {
                engine.remove_identity(IdentityId(id));
                if !self.endpoints.values().any(|used| *used == id) {
                    self.identities.remove(&id);
                }
            }
            Step::Group(group) => {
                engine.upsert_group(group.clone());
                self.group = Some(group);
            }
            Step::NoGroup => {
                engine.remove_group("g");
                self.group = None;
            }
            Step::Pod(number, id, port) => {
                engine.upsert_pod(&pod(number, id, &port));
                self.pods.insert(number, pod(number, id, &port));
            }
            Step::NoPod(number) => {
                engine.remove_pod(&PodName::new("x", format!("pod-{number}")));
                self.pods.remove(&number);
            }
            Step::Attach(endpoint, id) => {
                engine.upsert_identity(&identity(id));
                self.identities.insert(id);
                engine.attach(EndpointId(endpoint), SubjectKey::new(IdentityId(id), &[]), None);
                self.endpoints.insert(endpoint, id);
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
        for (endpoint, id) in self.endpoints {
            engine.attach(EndpointId(endpoint), SubjectKey::new(IdentityId(id), &[]), None);
        }
        self.pods.values().for_each(|pod| engine.upsert_pod(pod));
        self.identities.iter().for_each(|id| engine.upsert_identity(&identity(*id)));
        self.group.into_iter().for_each(|group| engine.upsert_group(group));
        self.policies.into_values().rev().for_each(|policy| engine.upsert_policy(Arc::new(policy)));
        engine.settle();
        engine
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn step_by_step_gives_what_all_at_once_gives(steps in prop::collection::vec(step(), 1..40)) {
        let (mut engine, mut present) = (Engine::new(Enforcement::Default, DUAL, [], PolicyId(0)), Present::default());
        for step in steps {
            present.apply(&mut engine, step);
        }
        engine.collect_prefixes();
        engine.settle();
        prop_assert_eq!(comparable(&engine), comparable(&present.built_at_once()));
    }
}

fn policy_with(name: &str, statements: Vec<RuleStatement>) -> Arc<Policy> {
    let rule = crate::rules::Rule {
        subject: crate::rules::Selector::Everything,
        deny_ingress: true,
        deny_egress: false,
        statements,
        log: None,
    };
    let name = PolicyName { name: name.into(), ..policy_name(0) };
    Arc::new(Policy { name, labels: vec![], rules: vec![rule], problems: vec![], valid: true })
}

#[test]
fn a_known_policy_keeps_its_number_and_a_new_one_never_takes_it() {
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(9));
    (300..302).for_each(|id| engine.upsert_identity(&identity(id)));
    engine.attach(EndpointId(1), SubjectKey::new(IdentityId(300), &[]), None);
    engine.attach(EndpointId(2), SubjectKey::new(IdentityId(301), &[]), Some(PolicyId(4)));
    engine.attach(EndpointId(3), SubjectKey::new(IdentityId(301), &[]), Some(PolicyId(5)));
    let number = |id| engine.policy_of(EndpointId(id)).unwrap().id.0;
    assert_eq!((number(1), number(2), number(3)), (10, 4, 4));
}

#[test]
fn a_pod_whose_labels_are_unknown_may_do_nothing() {
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &[]), None);
    engine.settle();
    let row = engine.policy_of(ENDPOINT).unwrap();
    assert!(row.ingress_enforced && row.egress_enforced);
    assert_eq!(row.entries.keys().map(|key| key.peer).collect::<Vec<_>>(), [reserved::HOST]);
}

#[test]
fn a_new_member_touches_only_its_own_entries() {
    let everyone =
        crate::rules::Selector::all_of(vec![crate::rules::Requirement::exists(model::LabelSource::K8s, "app")]);
    let peers = crate::rules::Peers::Some(NonEmpty::one(crate::rules::Peer::Labels(everyone)));
    let statement = RuleStatement {
        direction: Direction::Ingress,
        effect: Effect::Allow,
        peers,
        ports: None,
        origin: "ingress[0]".into(),
    };
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
    engine.upsert_identity(&identity(300));
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &[]), None);
    engine.upsert_policy(policy_with("p", vec![statement]));
    engine.settle();
    let before = engine.policy_of(ENDPOINT).unwrap().entries;
    engine.upsert_identity(&identity(301));
    assert_eq!(engine.settle().len(), 1);
    let after = engine.policy_of(ENDPOINT).unwrap().entries;
    let changed: Vec<_> = before.diff(&after).collect();
    assert_eq!(changed.len(), 1);
    assert!(after.keys().any(|key| key.peer == IdentityId(301)));
    assert!(engine.settle().is_empty());
}
