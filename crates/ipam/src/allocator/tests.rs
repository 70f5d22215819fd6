// SPDX-License-Identifier: Apache-2.0
use super::{Allocator, Error, PoolUsage};
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn allocator(prefixes: &[&str], own: &[&str]) -> (Allocator, statedb::Reader<PoolUsage>) {
    let (writer, reader) = statedb::table("ipam-pools");
    let allocator = Allocator::new(writer);
    configure(&allocator, prefixes, own);
    (allocator, reader)
}

fn configure(allocator: &Allocator, prefixes: &[&str], own: &[&str]) {
    let prefixes: Vec<IpNet> = prefixes.iter().map(|p| net(p)).collect();
    allocator.configure(&prefixes, own.iter().map(|o| ip(o)));
}

#[test]
fn network_broadcast_and_router_addresses_are_never_handed_out() {
    let (allocator, _) = allocator(&["10.0.0.0/29"], &["10.0.0.1", "192.0.2.9"]);
    let given: BTreeSet<_> = (0..5).map(|_| allocator.allocate("a/b", true, false).unwrap().ipv4.unwrap()).collect();
    assert_eq!(
        given.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    );
    let error = allocator.allocate("a/c", true, false).unwrap_err();
    assert_eq!(error, Error::Exhausted { pool: "10.0.0.0/29".into(), capacity: 5 });
}

#[test]
fn without_a_pod_cidr_of_the_family_nothing_is_handed_out_and_nothing_is_kept_back() {
    let (allocator, pools) = allocator(&["10.0.0.0/30"], &[]);
    assert_eq!(allocator.allocate("a/b", true, true).unwrap_err(), Error::NotReady { family: "IPv6" });
    assert_eq!(pools.snapshot().get(&net("10.0.0.0/30")).unwrap().used, 0);
    allocator.allocate("a/b", true, false).unwrap();
}

#[test]
fn an_address_comes_back_into_use_only_after_all_others() {
    let (allocator, _) = allocator(&["10.0.0.0/29"], &[]);
    let first = allocator.allocate("a/b", true, false).unwrap().ipv4.unwrap();
    let stranger = allocator.release("a/c", first.into()).unwrap_err();
    assert_eq!(stranger, Error::Taken { ip: first.into(), owner: "a/b".into() });
    assert_eq!(allocator.release("a/b", first.into()), Ok(true));
    let next: Vec<_> = (0..6).map(|_| allocator.allocate("a/c", true, false).unwrap().ipv4.unwrap()).collect();
    assert_eq!(next.iter().position(|ip| *ip == first), Some(5));
}

#[test]
fn a_pool_that_is_configured_as_it_is_remembers_what_it_gave() {
    let (allocator, _) = allocator(&["10.0.0.0/29"], &["10.0.0.6"]);
    let first = allocator.allocate("a/b", true, false).unwrap().ipv4.unwrap();
    assert_eq!(allocator.release("a/b", first.into()), Ok(true));
    configure(&allocator, &["10.0.0.0/29"], &["10.0.0.6"]);
    assert_ne!(allocator.allocate("a/c", true, false).unwrap().ipv4, Some(first), "others were never given");
    // Another address of the node's own is withheld at once, and the one that was is free. Nothing else is forgotten.
    configure(&allocator, &["10.0.0.0/29"], &["10.0.0.5"]);
    let given: Vec<_> = (0..4).map(|_| allocator.allocate("a/c", true, false).unwrap().ipv4.unwrap()).collect();
    assert_eq!(
        given.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.0.1"]
    );
}

#[test]
fn claims_made_before_the_pod_cidr_is_known_hold_when_it_comes() {
    let (allocator, pools) = allocator(&[], &[]);
    allocator.claim("a/b", ip("10.0.0.1")).unwrap();
    configure(&allocator, &["10.0.0.0/30"], &[]);
    assert_eq!(allocator.allocate("a/c", true, false).unwrap().ipv4.map(IpAddr::from), Some(ip("10.0.0.2")));
    allocator.allocate("a/d", true, false).unwrap_err();
    assert_eq!(
        *pools.snapshot().get(&net("10.0.0.0/30")).unwrap().as_ref(),
        PoolUsage { prefix: net("10.0.0.0/30"), capacity: 2, used: 2 }
    );
}

#[test]
fn an_address_can_be_claimed_by_one_owner_and_only_from_this_nodes_pools() {
    let (allocator, _) = allocator(&["10.0.0.0/24"], &["10.0.0.1"]);
    allocator.claim("a/b", ip("10.0.0.9")).unwrap();
    allocator.claim("a/b", ip("10.0.0.9")).unwrap();
    assert_eq!(allocator.claim("a/c", ip("10.0.0.9")), Err(Error::Taken { ip: ip("10.0.0.9"), owner: "a/b".into() }));
    assert_eq!(
        allocator.claim("a/c", ip("10.0.0.1")),
        Err(Error::Taken { ip: ip("10.0.0.1"), owner: "the node".into() })
    );
    assert_eq!(allocator.claim("a/c", ip("10.1.0.1")), Err(Error::Foreign(ip("10.1.0.1"))));
}

#[test]
fn a_second_pod_cidr_is_used_when_the_first_is_full_and_a_lost_one_takes_no_pods_address_away() {
    let (allocator, pools) = allocator(&["10.0.0.0/30"], &[]);
    for _ in 0..2 {
        allocator.allocate("a/b", true, false).unwrap();
    }
    configure(&allocator, &["10.0.0.0/30", "10.9.0.0/30"], &[]);
    assert_eq!(allocator.allocate("a/b", true, false).unwrap().ipv4.map(IpAddr::from), Some(ip("10.9.0.1")));
    configure(&allocator, &["10.9.0.0/30"], &[]);
    assert_eq!(allocator.owners().len(), 3);
    configure(&allocator, &["10.0.0.0/30", "10.9.0.0/30"], &[]);
    assert_eq!(pools.snapshot().get(&net("10.0.0.0/30")).unwrap().used, 2);
}

#[test]
fn a_huge_ipv6_prefix_costs_nothing() {
    let (allocator, pools) = allocator(&["fd00::/48"], &["fd00::1"]);
    assert_eq!(allocator.allocate("a/b", false, true).unwrap().ipv6.map(IpAddr::from), Some(ip("fd00::2")));
    assert_eq!(pools.snapshot().get(&net("fd00::/48")).unwrap().capacity, (1 << 80) - 2);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate,
    Claim(u8),
    Release(u8),
    /// Which of the prefixes are there, and which address is the node's.
    Configure(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Allocate),
        2 => any::<u8>().prop_map(Step::Claim),
        3 => any::<u8>().prop_map(Step::Release),
        1 => (0..8_u8).prop_map(Step::Configure),
    ]
}

proptest! {
    /// Against a plain map of owners: nothing is handed out twice, nothing is lost, and an error means what it says.
    #[test]
    fn it_agrees_with_a_naive_model(steps in prop::collection::vec(step(), 0..120)) {
        let prefixes = ["10.0.0.0/29", "10.0.0.16/30"];
        let mut own = ip("10.0.0.1");
        let (allocator, pools) = allocator(&prefixes, &["10.0.0.1"]);
        let mut present: Vec<IpNet> = prefixes.iter().map(|p| net(p)).collect();
        let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
        let address = |n: u8| ip(&format!("10.0.0.{}", n % 24));
        for (i, step) in steps.into_iter().enumerate() {
            let owner = format!("ns/{i}");
            let withheld = own;
            let usable = |ip: &IpAddr, present: &[IpNet]| {
                *ip != withheld && present.iter().any(|p| p.contains(ip) && p.network() != *ip && p.broadcast() != *ip)
            };
            match step {
                Step::Allocate => {
                    let free = (0..24).map(address).filter(|ip| usable(ip, &present) && !owners.contains_key(ip)).count();
                    match allocator.allocate(&owner, true, false) {
                        Ok(got) => {
                            let got = IpAddr::from(got.ipv4.unwrap());
                            prop_assert!(usable(&got, &present), "{got} is not usable");
                            prop_assert_eq!(owners.insert(got, owner), None);
                        }
                        Err(_) => prop_assert_eq!(free, 0),
                    }
                }
                Step::Claim(n) => {
                    let ip = address(n);
                    let free = !owners.contains_key(&ip) && (usable(&ip, &present) || present.is_empty());
                    prop_assert_eq!(allocator.claim(&owner, ip).is_ok(), free);
                    if free {
                        owners.insert(ip, owner);
                    }
                }
                Step::Release(n) => {
                    let (ip, had) = (address(n), owners.remove(&address(n)));
                    // The owner of this step has nothing yet.
                    let taken = had.clone().map(|owner| Error::Taken { ip, owner });
                    prop_assert_eq!(allocator.release(&owner, ip), taken.map_or(Ok(false), Err));
                    prop_assert_eq!(allocator.release(had.as_deref().unwrap_or_default(), ip), Ok(had.is_some()));
                }
                Step::Configure(which) => {
                    present = prefixes.iter().enumerate().filter(|(i, _)| which >> i & 1 == 1).map(|(_, p)| net(p)).collect();
                    own = ip(if which & 4 == 0 { "10.0.0.1" } else { "10.0.0.3" });
                    allocator.configure(&present, std::iter::once(own));
                }
            }
            prop_assert_eq!(&allocator.owners(), &owners);
            let used: u128 = pools.snapshot().iter().map(|row| row.used).sum();
            let counted = owners.keys().filter(|ip| present.iter().any(|p| p.contains(*ip))).count();
            prop_assert_eq!(used, u128::try_from(counted).unwrap());
        }
    }
}
