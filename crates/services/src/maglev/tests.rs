// SPDX-License-Identifier: Apache-2.0
//! Tests of the lookup tables: what the paper promises.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use model::{BackendId, BackendState, Protocol};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn maglev(size: u32) -> Maglev {
    Maglev { size, seed: "JLfvgnHc2kaSUFaI".to_owned() }
}

/// Backends by the last bytes of their addresses; numbers begin behind `base`.
fn backends(hosts: &BTreeSet<u16>, base: u32) -> Vec<Backend> {
    let addr = |host: u16| {
        let [high, low] = host.to_be_bytes();
        L4Addr { ip: IpAddr::from([10, 1, high, low]), port: 8080, protocol: Protocol::Tcp }
    };
    let numbered = hosts.iter().zip(base + 1..);
    numbered.map(|(host, id)| Backend::new(BackendId(id), addr(*host), BackendState::Active)).collect()
}

/// Which address has each position.
fn owners(maglev: &Maglev, backends: &[Backend]) -> Vec<L4Addr> {
    let by_id: BTreeMap<u32, L4Addr> = backends.iter().map(|b| (b.id.0, b.addr)).collect();
    maglev.table(backends.iter()).iter().map(|id| by_id[id]).collect()
}

fn hosts() -> impl Strategy<Value = BTreeSet<u16>> {
    prop::collection::btree_set(any::<u16>(), 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shares_differ_by_less_than_one_in_a_hundred(hosts in hosts()) {
        let maglev = maglev(16381);
        let mut shares: BTreeMap<L4Addr, u32> = BTreeMap::new();
        owners(&maglev, &backends(&hosts, 0)).into_iter().for_each(|owner| *shares.entry(owner).or_default() += 1);
        prop_assert_eq!(shares.len(), hosts.len(), "each backend has a share");
        let fair = 16381.0 / hosts.len() as f64;
        for share in shares.into_values() {
            prop_assert!((f64::from(share) - fair).abs() <= fair / 100.0, "{} of {}", share, fair);
        }
    }

    #[test]
    fn what_does_not_leave_keeps_nearly_all_of_its_positions(hosts in hosts(), which: prop::sample::Index) {
        let maglev = maglev(16381);
        let gone = *which.get(&hosts.iter().copied().collect::<Vec<_>>());
        let rest: BTreeSet<u16> = hosts.iter().copied().filter(|host| *host != gone).collect();
        prop_assume!(!rest.is_empty());
        let (before, after) = (owners(&maglev, &backends(&hosts, 0)), owners(&maglev, &backends(&rest, 0)));
        let left = backends(&[gone].into(), 0)[0].addr;
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != left && before != after).count();
        // The paper has some 2 % for a hundred of its backends.
        prop_assert!(moved * 100 <= 16381 * 6, "{} positions moved", moved);
        prop_assert!(!after.contains(&left));
    }

    #[test]
    fn nodes_agree_whatever_numbers_they_give(hosts in hosts(), base in 1..1_000_000_u32) {
        let maglev = maglev(251);
        prop_assert_eq!(owners(&maglev, &backends(&hosts, 0)), owners(&maglev, &backends(&hosts, base)));
    }
}

#[test]
fn another_seed_makes_another_table_and_no_backends_make_none() {
    let backends = backends(&(1..10).collect(), 0);
    let other = Maglev { seed: "AAAAAAAAAAAAAAAA".to_owned(), ..maglev(251) };
    assert_ne!(owners(&maglev(251), &backends), owners(&other, &backends));
    assert_eq!((maglev(251).table([].iter()).len(), maglev(251).parts([].iter()).len()), (0, 0));
}

#[test]
fn more_backends_than_positions_fill_the_table_once() {
    let many = backends(&(0..300).collect(), 0);
    let table = maglev(251).table(many.iter());
    assert_eq!((table.len(), table.iter().collect::<BTreeSet<_>>().len()), (251, 251));
}

#[test]
fn parts_are_the_table_with_nothing_behind_its_end() {
    let backends = backends(&(1..4).collect(), 0);
    let (table, parts) = (maglev(509).table(backends.iter()), maglev(509).parts(backends.iter()));
    let mut flat: Vec<u32> = parts.iter().flat_map(|part| part.backends.as_flattened()).copied().collect();
    assert_eq!(flat.split_off(509), [0; 3]);
    assert_eq!(flat, table);
}
