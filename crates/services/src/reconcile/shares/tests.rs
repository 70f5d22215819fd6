// SPDX-License-Identifier: Apache-2.0
//! Shares beside a naive reading of who has what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;

const CAPACITY: usize = 64;
const NAMESPACES: [&str; 4] = ["a", "b", "c", "d"];

fn slots(slots: usize) -> Entries {
    Entries { slots, ..Entries::default() }
}

/// Nobody has anything yet.
fn shares() -> Shares {
    let [services, slots, backends, ids, ranges, tables] = [CAPACITY; NAMES.len()];
    let mut shares = Shares::new(Entries { services, slots, backends, ids, ranges, tables }, Entries::default());
    shares.begin();
    shares
}

fn give(shares: &mut Shares, namespace: &str, more: usize) -> Result<(), Refusal> {
    let namespace = namespace.into();
    shares.admit(&namespace, slots(more))?;
    shares.take(slots(0), slots(more));
    shares.charge(&namespace, slots(0), slots(more));
    Ok(())
}

fn take_away(shares: &mut Shares, namespace: &str, fewer: usize) {
    shares.take(slots(fewer), slots(0));
    shares.charge(&namespace.into(), slots(fewer), slots(0));
}

#[test]
fn who_has_the_most_of_a_map_that_is_nearly_full_goes_without_until_there_is_room() {
    let mut shares = shares();
    give(&mut shares, "small", 1).unwrap();
    give(&mut shares, "greedy", 55).unwrap();
    let refused = give(&mut shares, "greedy", 1).unwrap_err();
    let says = "map cilium_lb_slots is nearly full (56 of 64 entries), and namespace greedy has 55 of them already, with a share of 32";
    assert_eq!(refused.to_string(), says);
    give(&mut shares, "small", 4).unwrap();
    give(&mut shares, "new", 4).unwrap();
    assert!(!shares.has_made_room());
    take_away(&mut shares, "greedy", 9);
    assert!(!shares.has_made_room(), "for the next one, but hardly for more");
    take_away(&mut shares, "greedy", 1);
    assert_eq!([shares.has_made_room(), shares.has_made_room()], [true, false]);
    give(&mut shares, "greedy", 2).unwrap();
}

#[test]
fn a_namespace_alone_may_have_all_and_one_that_wants_nothing_more_is_never_refused() {
    let mut shares = shares();
    give(&mut shares, "alone", CAPACITY).unwrap();
    give(&mut shares, "other", 1).expect("the kernel says that it is full");
    give(&mut shares, "alone", 0).unwrap();
    assert!(give(&mut shares, "alone", 1).is_err(), "it is not alone any more");
}

#[test]
fn what_a_process_found_is_nobodys_to_grow_beside_before_it_is_known_whose_it_is() {
    let capacity = slots(CAPACITY);
    let mut shares = Shares::new(capacity, slots(60));
    let (greedy, small) = ("greedy".into(), "small".into());
    let refused = shares.admit(&small, slots(1)).unwrap_err();
    let says = "map cilium_lb_slots is nearly full (60 of 64 entries), and it is not known yet with whose";
    assert_eq!(refused.to_string(), says);
    shares.begin();
    shares.take(slots(0), slots(60));
    shares.charge(&greedy, slots(0), slots(59));
    shares.charge(&small, slots(0), slots(1));
    assert!(shares.admit(&greedy, slots(1)).is_err());
    shares.admit(&small, slots(1)).unwrap();
}

/// A namespace wants more, or gives some back.
fn steps() -> impl Strategy<Value = Vec<(usize, bool, usize)>> {
    prop::collection::vec((0..NAMESPACES.len(), prop::bool::weighted(0.7), 1..20usize), 1..80)
}

proptest! {
    #[test]
    fn whoever_comes_and_goes_the_shares_are_those_of_a_naive_reading(steps in steps()) {
        let (mut shares, mut has) = (shares(), [0_usize; NAMESPACES.len()]);
        for (who, wants, count) in steps {
            let total: usize = has.iter().sum();
            let Some(own) = has.get_mut(who) else { continue };
            if wants {
                let before = *own;
                *own += count;
                let holders = has.iter().filter(|has| **has > 0).count();
                let is_its_turn = holders == 1 || before + count <= CAPACITY / holders;
                let may = total + count <= CAPACITY - CAPACITY / 8 || is_its_turn;
                prop_assert_eq!(give(&mut shares, NAMESPACES[who], count).is_ok(), may);
                if !may {
                    has[who] = before;
                }
            } else {
                let gives = count.min(*own);
                *own -= gives;
                take_away(&mut shares, NAMESPACES[who], gives);
            }
            let left: Vec<_> = shares.namespaces.values().map(|has| has.iter().sum::<usize>()).collect();
            let expected: Vec<_> = has.iter().copied().filter(|has| *has > 0).collect();
            prop_assert_eq!(left, expected, "nothing is kept of who has nothing");
        }
    }
}
