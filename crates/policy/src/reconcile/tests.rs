// SPDX-License-Identifier: Apache-2.0
//! The target against a kernel in memory, also one that fails.

use super::*;
use crate::rules::Direction;
use abi::policy::{DENY_PRECEDENCE, PREFIX_L3};
use datapath::fake;
use model::IdentityId;
use proptest::prelude::*;

fn key(peer: u32) -> EntryKey {
    EntryKey { direction: Direction::Ingress, peer: IdentityId(peer), prefix_len: PREFIX_L3 as u8, proto: 0, port: 0 }
}

fn entry(deny: bool, provenance: u32) -> PolicyEntry {
    let precedence = if deny { DENY_PRECEDENCE } else { 1 };
    PolicyEntry { precedence, provenance, proxy_port: 0, deny: u8::from(deny), prefix_len: PREFIX_L3 as u8, pad: 0 }
}

fn row(id: u32, entries: &[(u32, bool)]) -> CompiledPolicy {
    CompiledPolicy {
        id: PolicyId(id),
        identity: IdentityId(300),
        endpoints: vec![EndpointId(7)],
        ingress_enforced: true,
        egress_enforced: false,
        entries: entries.iter().map(|(peer, deny)| (key(*peer), entry(*deny, 5))).collect(),
    }
}

struct Fixture {
    kernel: fake::Kernel,
    epochs: Epochs,
    target: PolicyTarget,
}

fn fixture() -> Fixture {
    let kernel = fake::Kernel::new();
    let epochs = Epochs::open(&kernel).unwrap();
    let target = PolicyTarget::open(&kernel, epochs.clone()).unwrap();
    Fixture { kernel, epochs, target }
}

impl Fixture {
    /// By how much the pod's epoch rises.
    async fn update(&mut self, row: &CompiledPolicy) -> u32 {
        let before = self.epochs.endpoint(7).unwrap();
        self.target.update(row).await.unwrap();
        self.epochs.endpoint(7).unwrap() - before
    }
}

#[tokio::test]
async fn the_pods_epoch_rises_only_when_verdicts_may_shrink() {
    let mut f = fixture();
    assert_eq!(f.update(&row(1, &[(300, false)])).await, 0, "an allow is new");
    assert_eq!(f.update(&row(1, &[(300, false), (301, false)])).await, 0, "another allow");
    assert_eq!(f.update(&row(1, &[(300, false)])).await, 1, "an allow is gone");
    assert_eq!(f.update(&row(1, &[(300, false), (302, true)])).await, 1, "a deny is new");
    assert_eq!(f.update(&row(1, &[(300, true), (302, true)])).await, 1, "an allow becomes a deny");
    assert_eq!(f.update(&row(1, &[(300, false)])).await, 0, "only more is allowed");
    let mut renamed = row(1, &[]);
    renamed.entries.insert(key(300), entry(false, 6));
    assert_eq!(f.update(&renamed).await, 0, "another rule says the same");
    assert_eq!(f.kernel.trie::<Policies>().unwrap().entries().unwrap().len(), 1);
}

#[tokio::test]
async fn a_restart_finds_what_is_there_and_prunes_what_nobody_desires() {
    let mut f = fixture();
    for row in [row(1, &[(300, false)]), row(2, &[(301, false)])] {
        f.target.update(&row).await.unwrap();
    }
    let in_use = abi::endpoint::Endpoint { policy: 2, id: 9, identity: 301, ..Default::default() };
    f.kernel.map::<Endpoints>().unwrap().insert(&4, &in_use).unwrap();
    let mut second = PolicyTarget::open(&f.kernel, f.epochs.clone()).unwrap();
    assert_eq!(second.present()[&PolicyId(1)], row(1, &[(300, false)]).entries);
    assert_eq!(known_endpoints(&f.kernel).unwrap()[&EndpointId(9)], (PolicyId(2), IdentityId(301)));
    let (mut writer, reader) = statedb::table("compiled");
    writer.insert(row(1, &[(300, false)]));
    writer.commit();
    second.prune(&reader.snapshot()).await.unwrap();
    let left: BTreeSet<_> = second.policies.keys().unwrap().iter().map(|key| key.data.policy).collect();
    assert_eq!(left, BTreeSet::from([1]));
}

#[tokio::test]
async fn an_update_that_is_in_the_kernel_already_makes_no_write() {
    let mut f = fixture();
    f.update(&row(1, &[(300, false), (301, true)])).await;
    let full = fake::Kernel::new().with_capacity("cilium_policy", 0);
    f.target.policies = full.trie().unwrap();
    f.update(&row(1, &[(300, false), (301, true)])).await;
    assert!(f.target.update(&row(1, &[(302, false)])).await.is_err());
}

#[tokio::test]
async fn what_is_denied_is_in_the_kernel_before_what_is_allowed() {
    let mut f = fixture();
    f.target.policies = fake::Kernel::new().with_capacity("cilium_policy", 1).trie().unwrap();
    assert!(f.target.update(&row(1, &[(300, false), (301, true), (302, false)])).await.is_err());
    let there = f.target.policies.entries().unwrap();
    assert_eq!(there.iter().map(|(key, entry)| (key.data.identity, entry.deny)).collect::<Vec<_>>(), [(301, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_fails_in_between_the_kernel_ends_with_the_row(
        seed: u64, rows in prop::collection::vec(prop::collection::btree_map(300u32..306, any::<bool>(), 0..6), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kernel = fake::Kernel::new();
        let chaotic = fake::chaos(kernel.clone(), 0.3, seed);
        let epochs = Epochs::open(&kernel).unwrap();
        let mut target = (0..200).find_map(|_| PolicyTarget::open(&chaotic, epochs.clone()).ok()).unwrap();
        let mut allowed_before = BTreeSet::new();
        for entries in rows {
            let row = row(1, &entries.clone().into_iter().collect::<Vec<_>>());
            let epoch = epochs.endpoint(7).unwrap();
            let mut attempts = 0;
            while runtime.block_on(target.update(&row)).is_err() {
                attempts += 1;
                prop_assert!(attempts < 1000);
            }
            let there: BTreeMap<_, _> = kernel.trie::<Policies>().unwrap().entries().unwrap().into_iter()
                .map(|(key, entry)| (key.data.identity, entry.deny == 1)).collect();
            prop_assert_eq!(&there, &entries);
            let allowed: BTreeSet<_> = entries.iter().filter(|(_, deny)| !**deny).map(|(peer, _)| *peer).collect();
            let shrunk = !allowed_before.is_subset(&allowed);
            prop_assert!(!shrunk || epochs.endpoint(7).unwrap() > epoch);
            allowed_before = allowed;
        }
    }
}

#[tokio::test]
async fn in_a_full_map_what_is_withdrawn_makes_room_for_what_is_new() {
    let kernel = fake::Kernel::new().with_capacity("cilium_policy", 2);
    let mut target = PolicyTarget::open(&kernel, Epochs::open(&kernel).unwrap()).unwrap();
    target.update(&row(1, &[(300, false), (301, false)])).await.unwrap();
    let new = row(1, &[(302, true), (303, false)]);
    let first = target.update(&new).await;
    let left = |peer| kernel.trie::<Policies>().unwrap().keys().unwrap().iter().any(|key| key.data.identity == peer);
    assert!(!left(300) && !left(301), "nobody is allowed what is allowed no more, for want of room: {first:?}");
    target.update(&new).await.expect("there is room now");
    assert!(left(302) && left(303));
}
