// SPDX-License-Identifier: Apache-2.0
//! Random clusters, and operators killed between any two writes. The invariants come from an oracle that enumerates the
//! addresses of small pools and shares no code with the allocator.

use super::cluster::{Cluster, Object, service};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Step {
    Service(usize, Ask),
    Gone(usize),
    Pool(usize, PoolSpec),
    PoolGone(usize),
    /// The operator decides, makes this many of the writes, and is killed or goes on.
    Writes {
        count: usize,
        killed: bool,
    },
}

/// What a Service asks for.
#[derive(Clone, Debug)]
struct Ask {
    addresses: Vec<u8>,
    key: Option<u8>,
    port: u8,
    local: bool,
    color: u8,
    ours: bool,
}

#[derive(Clone, Debug)]
struct PoolSpec {
    first: u8,
    size: u8,
    color: Option<u8>,
    disabled: bool,
    spares_ends: bool,
}

const SERVICES: usize = 6;
const POOLS: usize = 3;

fn address(n: u8) -> String {
    Ipv4Addr::new(10, 0, 0, n).to_string()
}

impl Ask {
    fn object(&self) -> Object {
        let mut annotations = json!({});
        if !self.addresses.is_empty() {
            let list: Vec<String> = self.addresses.iter().map(|n| address(*n)).collect();
            annotations["lbipam.cilium.io/ips"] = json!(list.join(","));
        }
        if let Some(key) = self.key {
            annotations["lbipam.cilium.io/sharing-key"] = json!(format!("k{key}"));
        }
        let policy = if self.local { "Local" } else { "Cluster" };
        let object = service().port(self.port.into(), "TCP").spec("externalTrafficPolicy", json!(policy));
        let object = object.spec("selector", json!({"app": "x"})).labels(json!({"color": self.color.to_string()}));
        let class = if self.ours { Value::Null } else { json!("example.com/other") };
        object.metadata("annotations", annotations).spec("loadBalancerClass", class)
    }
}

impl PoolSpec {
    fn object(&self) -> Value {
        let block = if self.spares_ends {
            json!({"cidr": format!("{}/29", address(self.first & !7))})
        } else {
            json!({"start": address(self.first), "stop": address(self.first + self.size)})
        };
        let allow = if self.spares_ends { "No" } else { "Yes" };
        let mut spec = json!({"blocks": [block], "disabled": self.disabled, "allowFirstLastIPs": allow});
        if let Some(color) = self.color {
            spec["serviceSelector"] = json!({"matchLabels": {"color": color.to_string()}});
        }
        spec
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (
        prop::collection::vec(0..24_u8, 0..2),
        prop::option::of(0..2_u8),
        1..4_u8,
        prop::bool::weighted(0.2),
        0..2_u8,
        prop::bool::weighted(0.9),
    );
    let ask =
        ask.prop_map(|(addresses, key, port, local, color, ours)| Ask { addresses, key, port, local, color, ours });
    let pool = (0..16_u8, 0..6_u8, prop::option::of(0..2_u8), prop::bool::weighted(0.15), prop::bool::weighted(0.3));
    let pool = pool.prop_map(|(first, size, color, disabled, spares_ends)| PoolSpec {
        first,
        size,
        color,
        disabled,
        spares_ends,
    });
    prop_oneof![
        4 => (0..SERVICES, ask).prop_map(|(n, ask)| Step::Service(n, ask)),
        1 => (0..SERVICES).prop_map(Step::Gone),
        2 => (0..POOLS, pool).prop_map(|(n, pool)| Step::Pool(n, pool)),
        1 => (0..POOLS).prop_map(Step::PoolGone),
        4 => (0..5_usize, any::<bool>()).prop_map(|(count, killed)| Step::Writes { count, killed }),
    ]
}

/// The test's own account of the cluster.
#[derive(Default)]
struct Oracle {
    asks: BTreeMap<String, Ask>,
    /// Each with its age: lower is older.
    pools: BTreeMap<String, (usize, PoolSpec)>,
}

impl Oracle {
    /// Whether two Services may have the same address.
    fn may_share(&self, one: &str, other: &str) -> bool {
        let (Some(one), Some(other)) = (self.asks.get(one), self.asks.get(other)) else { return false };
        // Another controller's Service shares with none.
        one.ours
            && other.ours
            && one.key.is_some()
            && one.key == other.key
            && one.port != other.port
            && one.local == other.local
    }

    fn members(spec: &PoolSpec) -> BTreeSet<u8> {
        if spec.spares_ends {
            (spec.first & !7..=spec.first | 7).collect()
        } else {
            (spec.first..=spec.first + spec.size).collect()
        }
    }

    /// The open pools and the addresses they may give out.
    fn open(&self) -> Vec<(&PoolSpec, BTreeSet<u8>)> {
        let mut by_age: Vec<_> = self.pools.values().collect();
        by_age.sort_by_key(|(age, _)| *age);
        let (mut taken, mut open) = (BTreeSet::new(), Vec::new());
        for (_, spec) in by_age {
            let members = Self::members(spec);
            if taken.is_disjoint(&members) {
                taken.extend(&members);
                let ends = [spec.first & !7, spec.first | 7];
                let given = members.into_iter().filter(|n| !spec.spares_ends || !ends.contains(n)).collect();
                if !spec.disabled {
                    open.push((spec, given));
                }
            }
        }
        open
    }

    fn selects(spec: &PoolSpec, ask: &Ask) -> bool {
        spec.color.is_none_or(|color| color == ask.color)
    }

    /// What a Service could be given while all others keep theirs.
    fn could_have(&self, name: &str, ask: &Ask, has: &BTreeMap<String, BTreeSet<u8>>) -> BTreeSet<u8> {
        let open = self.open();
        let open = open.iter().filter(|(spec, _)| Self::selects(spec, ask));
        let candidates = open.flat_map(|(spec, given)| {
            // A reserved end of a prefix may be shared with a Service that has it.
            Self::members(spec).into_iter().filter(|n| given.contains(n) || has.values().any(|set| set.contains(n)))
        });
        let free = |n: &u8| {
            let mut holders = has.iter().filter(|(other, set)| *other != name && set.contains(n));
            holders.all(|(other, _)| self.may_share(name, other))
        };
        candidates.filter(free).collect()
    }
}

fn last_byte(address: &str) -> u8 {
    address.parse::<Ipv4Addr>().unwrap().octets()[3]
}

/// Who has which address now.
fn statuses(cluster: &Cluster) -> BTreeMap<String, BTreeSet<u8>> {
    let names = cluster.services.keys().cloned();
    names.map(|name| (name.clone(), cluster.addresses(&name).iter().map(|ip| last_byte(ip)).collect())).collect()
}

/// Writes one Service and checks that nobody gets what another has.
fn write(cluster: &mut Cluster, oracle: &Oracle, name: &str) -> Result<(), TestCaseError> {
    let before = statuses(cluster);
    cluster.write(name);
    let after = statuses(cluster);
    let had = before.get(name).cloned().unwrap_or_default();
    for new in after.get(name).into_iter().flatten().filter(|n| !had.contains(n)) {
        for (other, set) in &after {
            let clash = other != name && set.contains(new) && !oracle.may_share(name, other);
            // A Service in its way may have to release it, but must do so first.
            prop_assert!(!clash, "{name} got {new}, which {other} has");
        }
    }
    Ok(())
}

fn settled(cluster: &mut Cluster, oracle: &Oracle) -> Result<(), TestCaseError> {
    cluster.run();
    let has = statuses(cluster);
    for (name, ask) in oracle.asks.iter().filter(|(_, ask)| ask.ours) {
        let own = &has[name];
        for n in own {
            let of = oracle.pools.values().filter(|(_, spec)| Oracle::members(spec).contains(n));
            prop_assert!(of.clone().any(|(_, spec)| Oracle::selects(spec, ask)), "{name} has {n} of no pool of its");
            for (other, _) in has.iter().filter(|(other, set)| *other != name && set.contains(n)) {
                prop_assert!(oracle.may_share(name, other), "{name} and {other} have {n}");
            }
        }
        if oracle.pools.is_empty() && cluster.object(name)["status"]["conditions"].is_null() {
            continue;
        }
        let asked: BTreeSet<u8> = ask.addresses.iter().copied().collect();
        let satisfied = if asked.is_empty() { !own.is_empty() } else { *own == asked };
        prop_assert_eq!(cluster.said(name).1 == "satisfied", satisfied, "{}: {:?}", name, own);
        if !satisfied {
            let could = oracle.could_have(name, ask, &has);
            let missed =
                if asked.is_empty() { !could.is_empty() } else { asked.difference(own).any(|n| could.contains(n)) };
            prop_assert!(!missed, "{name} has {own:?} and could have had of {could:?}");
        }
    }
    // An operator that starts from nothing has nothing to change.
    cluster.restart();
    prop_assert_eq!(cluster.run(), 0);
    prop_assert_eq!(statuses(cluster), has);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn operators_killed_between_any_two_writes_give_no_address_twice(steps in prop::collection::vec(step(), 1..60)) {
        let (mut cluster, mut oracle) = (Cluster::default(), Oracle::default());
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Service(name, ask) => {
                    let name = format!("default/s{name}");
                    let same = oracle.asks.get(&name).is_some_and(|before| before.ours == ask.ours);
                    if !same {
                        // The class of a Service is immutable: it is recreated.
                        cluster.remove_service(&name);
                    }
                    let has = statuses(&cluster);
                    let others = |n: &&u8| !ask.ours && !has.values().any(|set| set.contains(n));
                    let given: Vec<String> = ask.addresses.iter().filter(others).map(|n| address(*n)).collect();
                    let given: Vec<&str> = given.iter().map(String::as_str).collect();
                    match cluster.services.get(&name).map(|object| object["status"].clone()) {
                        Some(status) => cluster.service(&name, ask.object().whole_status(status)),
                        None => cluster.service(&name, ask.object().status(&given)),
                    }
                    oracle.asks.insert(name, ask);
                }
                Step::Gone(name) => {
                    let name = format!("default/s{name}");
                    cluster.remove_service(&name);
                    oracle.asks.remove(&name);
                }
                Step::Pool(name, spec) => {
                    let name = format!("p{name}");
                    cluster.pool(&name, spec.object());
                    let age = oracle.pools.get(&name).map_or(n, |(age, _)| *age);
                    oracle.pools.insert(name, (age, spec));
                }
                Step::PoolGone(name) => {
                    cluster.remove_pool(&format!("p{name}"));
                    oracle.pools.remove(&format!("p{name}"));
                }
                Step::Writes { count, killed } => {
                    for name in cluster.decide().iter().take(count) {
                        write(&mut cluster, &oracle, name)?;
                    }
                    if killed { cluster.restart(); }
                }
            }
        }
        settled(&mut cluster, &oracle)?;
    }
}
