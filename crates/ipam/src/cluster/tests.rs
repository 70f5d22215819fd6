// SPDX-License-Identifier: Apache-2.0
use super::{Allocator, Decision, NodeCidrs, Pools, PoolsError, overlap};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pools(prefixes: &[&str], mask_size: u8) -> Pools {
    Pools::new(&prefixes.iter().map(|p| net(p)).collect::<Vec<_>>(), mask_size).unwrap()
}

fn node(name: &str, age: u32, cidrs: &[&str]) -> NodeCidrs {
    NodeCidrs { name: name.into(), age: format!("{age:04}"), pod_cidrs: cidrs.iter().map(|c| net(c)).collect() }
}

/// One that lets nothing rest.
fn allocator(families: Vec<Pools>) -> Allocator {
    Allocator::new(families, Duration::ZERO)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn resolve(allocator: &mut Allocator, nodes: &[NodeCidrs]) -> BTreeMap<String, Decision> {
    allocator.resolve(nodes, now())
}

fn assign(cidrs: &[&str]) -> Decision {
    Decision::Assign(cidrs.iter().map(|c| net(c)).collect())
}

#[test]
fn each_node_gets_a_prefix_of_each_family_and_keeps_what_it_has() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24), pools(&["fd00::/48"], 64)]);
    let nodes = [node("a", 1, &["10.0.1.0/24", "fd00::/64"]), node("b", 2, &[]), node("c", 3, &["10.0.0.0/24"])];
    let decisions = resolve(&mut allocator, &nodes);
    assert_eq!(decisions["a"], Decision::Keep);
    assert_eq!(decisions["b"], assign(&["10.0.2.0/24", "fd00:0:0:1::/64"]));
    assert_eq!(decisions["c"], assign(&["10.0.0.0/24", "fd00:0:0:2::/64"]));
}

#[test]
fn what_was_given_but_not_yet_seen_is_not_given_to_another() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24)]);
    assert_eq!(resolve(&mut allocator, &[node("b", 2, &[])])["b"], assign(&["10.0.0.0/24"]));
    let decisions = resolve(&mut allocator, &[node("a", 1, &[]), node("b", 2, &[])]);
    assert_eq!(decisions["a"], assign(&["10.0.1.0/24"]));
    assert_eq!(decisions["b"], assign(&["10.0.0.0/24"]));
    let decisions = resolve(&mut allocator, &[node("a", 1, &["10.0.1.0/24"]), node("b", 2, &["10.0.0.0/24"])]);
    assert!(decisions.values().all(|d| *d == Decision::Keep), "{decisions:?}");
}

#[test]
fn what_could_not_be_written_is_free_again() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24)]);
    resolve(&mut allocator, &[node("b", 2, &[])]);
    allocator.forget("b");
    let decisions = resolve(&mut allocator, &[node("a", 1, &["10.0.0.0/24"]), node("b", 2, &[])]);
    assert_eq!((&decisions["a"], &decisions["b"]), (&Decision::Keep, &assign(&["10.0.1.0/24"])));
}

#[test]
fn what_was_given_stands_until_all_of_it_is_seen_or_something_else_is() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24), pools(&["fd00::/48"], 64)]);
    let both = assign(&["10.0.0.0/24", "fd00::/64"]);
    assert_eq!(resolve(&mut allocator, &[node("a", 1, &[])])["a"], both);
    assert_eq!(resolve(&mut allocator, &[node("a", 1, &["10.0.0.0/24"])])["a"], both, "half of it is there");
    let by_hand = resolve(&mut allocator, &[node("a", 1, &["10.0.9.0/24"])]);
    assert_eq!(by_hand["a"], assign(&["10.0.9.0/24", "fd00::/64"]), "somebody wrote another one");
    let seen = resolve(&mut allocator, &[node("a", 1, &["10.0.9.0/24", "fd00::/64"])]);
    assert_eq!(seen["a"], Decision::Keep);
}

#[test]
fn a_node_that_goes_gives_its_prefix_back() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/23"], 24)]);
    resolve(&mut allocator, &[node("a", 1, &[]), node("b", 2, &[])]);
    let decisions = resolve(&mut allocator, &[node("b", 2, &["10.0.1.0/24"]), node("c", 3, &[])]);
    assert_eq!(decisions["c"], assign(&["10.0.0.0/24"]));
}

#[test]
fn a_node_that_comes_back_gets_what_it_had_and_others_keep_off_that_while_they_can() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/21"], 24), pools(&["fd00::/61"], 64)]);
    let a = node("a", 1, &["10.0.0.0/24", "fd00::/64"]);
    let b = node("b", 2, &["10.0.1.0/24", "fd00:0:0:1::/64"]);
    resolve(&mut allocator, &[a.clone(), b.clone()]);
    // Its Node is registered anew: the object goes, and a newcomer is quicker.
    let decisions = resolve(&mut allocator, &[b.clone(), node("c", 3, &[])]);
    assert_eq!(decisions["c"], assign(&["10.0.2.0/24", "fd00:0:0:2::/64"]));
    let c = node("c", 3, &["10.0.2.0/24", "fd00:0:0:2::/64"]);
    let decisions = resolve(&mut allocator, &[b.clone(), c.clone(), node("d", 4, &[]), node("a", 5, &[])]);
    assert_eq!(decisions["a"], assign(&["10.0.0.0/24", "fd00::/64"]));
    assert_eq!(decisions["d"], assign(&["10.0.3.0/24", "fd00:0:0:3::/64"]));
}

#[test]
fn a_node_that_goes_twice_gets_what_it_had_last() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24)]);
    let (a, other) = (node("a", 1, &["10.0.0.0/24"]), node("a", 2, &["10.0.7.0/24"]));
    for nodes in [&[a][..], &[], &[other], &[]] {
        resolve(&mut allocator, nodes);
    }
    assert_eq!(resolve(&mut allocator, &[node("a", 3, &[])])["a"], assign(&["10.0.7.0/24"]));
}

#[test]
fn what_has_been_free_for_longest_is_given_first_when_there_is_nothing_else() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/22"], 24)]);
    let all = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"];
    let nodes: Vec<_> = all.iter().zip(["a", "b", "c", "d"]).map(|(cidr, name)| node(name, 1, &[cidr])).collect();
    resolve(&mut allocator, &nodes);
    resolve(&mut allocator, &[nodes[0].clone(), nodes[2].clone(), nodes[3].clone()]);
    resolve(&mut allocator, &[nodes[2].clone(), nodes[3].clone()]);
    let decisions = resolve(&mut allocator, &[nodes[2].clone(), nodes[3].clone(), node("e", 2, &[])]);
    assert_eq!(decisions["e"], assign(&["10.0.1.0/24"]));
    // What another has by now is not given back.
    let present = [nodes[2].clone(), nodes[3].clone(), node("e", 2, &["10.0.1.0/24"])];
    let decisions = resolve(&mut allocator, &[present.as_slice(), &[node("b", 3, &[])]].concat());
    assert_eq!(decisions["b"], assign(&["10.0.0.0/24"]));
}

#[test]
fn what_a_node_had_rests_before_another_gets_it() {
    let rest = Duration::from_secs(300);
    let mut allocator = Allocator::new(vec![pools(&["10.0.0.0/23"], 24)], rest);
    let (a, b) = (node("a", 1, &["10.0.0.0/24"]), node("b", 2, &["10.0.1.0/24"]));
    let start = now();
    allocator.resolve(&[a, b.clone()], start);
    // No node waits: nothing is due.
    allocator.resolve(std::slice::from_ref(&b), start);
    assert_eq!(allocator.due(), None);
    let waiting = [b.clone(), node("c", 3, &[])];
    let almost = start + rest - Duration::from_millis(1);
    for (now, due) in [(start, Some(start + rest)), (almost, Some(start + rest))] {
        let decisions = allocator.resolve(&waiting, now);
        assert!(matches!(decisions["c"], Decision::Refuse(_)), "{decisions:?}");
        assert_eq!(allocator.due(), due);
    }
    let decisions = allocator.resolve(&[b.clone(), node("c", 3, &[]), node("a", 4, &[])], almost);
    assert_eq!(decisions["a"], assign(&["10.0.0.0/24"]));
    allocator.resolve(&waiting, almost);
    assert_eq!(allocator.due(), Some(almost + rest), "it went again");
    assert_eq!(allocator.resolve(&waiting, almost + rest)["c"], assign(&["10.0.0.0/24"]));
    assert_eq!(allocator.due(), None);
}

#[test]
fn of_two_overlapping_nodes_the_older_keeps_its_pod_cidr_and_the_other_is_told() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24)]);
    let decisions = resolve(
        &mut allocator,
        &[node("new", 2, &["10.0.0.0/23"]), node("old", 1, &["10.0.1.0/24"]), node("x", 3, &[])],
    );
    assert_eq!(decisions["old"], Decision::Keep);
    let Decision::Refuse(reason) = &decisions["new"] else { panic!("{decisions:?}") };
    assert!(reason.contains("10.0.0.0/23 overlaps 10.0.1.0/24 of node old"), "{reason}");
    // What the refused node says it has is still not given to others.
    assert_eq!(decisions["x"], assign(&["10.0.2.0/24"]));
}

#[test]
fn a_node_that_was_right_stays_right_whatever_comes_later() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/16"], 24)]);
    resolve(&mut allocator, &[node("b", 1, &["10.0.0.0/24"])]);
    // Creation times are in seconds: these two are of one age.
    let decisions = resolve(&mut allocator, &[node("a", 1, &["10.0.0.0/25"]), node("b", 1, &["10.0.0.0/24"])]);
    assert_eq!(decisions["b"], Decision::Keep);
    assert!(matches!(decisions["a"], Decision::Refuse(_)), "{decisions:?}");
}

#[test]
fn an_exhausted_pool_is_named_and_other_nodes_are_left_alone() {
    let mut allocator = allocator(vec![pools(&["10.0.0.0/24", "10.9.0.0/24"], 24)]);
    let decisions = resolve(&mut allocator, &[node("a", 1, &["10.0.0.0/24"]), node("b", 2, &[]), node("c", 3, &[])]);
    assert_eq!(decisions["b"], assign(&["10.9.0.0/24"]));
    let Decision::Refuse(reason) = &decisions["c"] else { panic!("{decisions:?}") };
    assert!(reason.contains("10.0.0.0/24 10.9.0.0/24 (/24 for each node) is exhausted"), "{reason}");
}

#[test]
fn pools_that_make_no_sense_are_refused() {
    assert_eq!(
        Pools::new(&[net("10.0.0.0/24")], 16),
        Err(PoolsError::MaskSize { mask_size: 16, prefix: net("10.0.0.0/24") })
    );
    assert!(Pools::new(&[net("10.0.0.0/24")], 33).is_err());
    assert!(Pools::new(&[net("10.0.0.0/8"), net("10.1.0.0/16")], 24).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    /// A node that comes with a prefix that nobody gave it.
    AddWith(u8, u8, u8),
    Remove(u8),
    /// The decisions so far reach the API server for these nodes.
    Write(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Step::Add),
        1 => (0..12_u8, any::<u8>(), 25..30_u8).prop_map(|(n, at, len)| Step::AddWith(n, at, len)),
        2 => (0..12_u8).prop_map(Step::Remove),
        4 => any::<u8>().prop_map(Step::Write),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever comes, goes and is written late: no two prefixes that we gave overlap anything, nobody who could have a
    /// prefix is refused one, and a node never loses what it has.
    #[test]
    fn no_two_nodes_get_overlapping_prefixes(steps in prop::collection::vec(step(), 0..60)) {
        let pool = net("10.0.0.0/24");
        let make = || allocator(vec![pools(&["10.0.0.0/24"], 28)]);
        let mut allocator = make();
        let mut server: BTreeMap<String, NodeCidrs> = BTreeMap::new();
        let mut decisions = BTreeMap::new();
        for (age, step) in (0_u32..).zip(steps) {
            match step {
                Step::Add(n) => {
                    let name = format!("n{n}");
                    server.entry(name.clone()).or_insert_with(|| node(&name, age, &[]));
                }
                Step::AddWith(n, at, len) => {
                    let name = format!("n{n}");
                    let cidr = net(&format!("10.0.0.{at}/{len}")).trunc().to_string();
                    server.entry(name.clone()).or_insert_with(|| node(&name, age, &[&cidr]));
                }
                Step::Remove(n) => {
                    server.remove(&format!("n{n}"));
                }
                Step::Write(mask) => {
                    for (i, (name, decision)) in decisions.iter().enumerate() {
                        if let (true, Decision::Assign(cidrs), Some(node)) = (mask >> (i % 8) & 1 == 1, decision, server.get_mut(name)) {
                            node.pod_cidrs.clone_from(cidrs);
                        }
                    }
                }
                // A new leader knows nothing of what was given but not written; nor can that be written any more.
                Step::Restart => {
                    allocator = make();
                    decisions.clear();
                }
            }
            let nodes: Vec<_> = server.values().cloned().collect();
            decisions = resolve(&mut allocator, &nodes);
            let of = |name: &str| match &decisions[name] {
                Decision::Assign(cidrs) => cidrs.clone(),
                _ => server[name].pod_cidrs.clone(),
            };
            for (name, decision) in &decisions {
                if let Decision::Assign(cidrs) = decision {
                    prop_assert!(server[name].pod_cidrs.iter().all(|c| cidrs.contains(c)), "{name} loses its prefix");
                    prop_assert!(cidrs.iter().all(|c| pool.contains(c)));
                    // A node that came with a prefix of another is told so and keeps it.
                    let refused = |other: &str| matches!(decisions[other], Decision::Refuse(_)) && !server[other].pod_cidrs.is_empty();
                    let fresh: Vec<_> = cidrs.iter().filter(|c| !server[name].pod_cidrs.contains(c)).collect();
                    for other in server.keys().filter(|other| *other != name && !refused(other)) {
                        let clash = of(other).iter().any(|o| fresh.iter().any(|c| overlap(o, c)));
                        prop_assert!(!clash, "{name} and {other} overlap: {decisions:?}");
                    }
                }
                if let (Decision::Refuse(_), []) = (decision, server[name].pod_cidrs.as_slice()) {
                    let free = pool.subnets(28).unwrap().any(|s| {
                        server.keys().all(|n| of(n).iter().all(|c| !overlap(c, &s)))
                    });
                    prop_assert!(!free, "{name} was refused although a prefix is free");
                }
            }
        }
    }
}
