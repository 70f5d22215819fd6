// SPDX-License-Identifier: Apache-2.0
//! Indexes against a scan of a naive map, over random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{Row, table};

/// A row with tags, by which it is looked up.
#[derive(Clone, Debug, PartialEq)]
struct Tagged(u8, Vec<u8>);

impl Row for Tagged {
    type Key = u8;
    fn key(&self) -> u8 {
        self.0
    }
}

fn tags(row: &Tagged) -> Vec<u8> {
    row.1.clone()
}

#[test]
fn rows_that_were_there_before_are_found_and_those_that_are_only_staged_are_not() {
    let (mut writer, reader) = table("tagged");
    writer.insert(Tagged(1, vec![7, 7]));
    writer.commit();
    let index = reader.index(tags);
    writer.insert(Tagged(2, vec![7]));
    assert_eq!(index.get(&7), [Tagged(1, vec![7, 7]).into()]);
    writer.commit();
    assert_eq!(index.clone().get(&7).len(), 2);
    drop(writer);
    assert_eq!(index.get(&7).len(), 2);
    assert!(index.get(&8).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, Vec<u8>),
    Remove(u8),
    Commit,
    Look(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..8_u8, proptest::collection::vec(0..5_u8, 0..4)).prop_map(|(key, tags)| Step::Insert(key, tags)),
        2 => (0..8_u8).prop_map(Step::Remove),
        3 => Just(Step::Commit),
        3 => (0..5_u8).prop_map(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_finds_what_a_scan_finds(steps in proptest::collection::vec(step(), 0..80)) {
        let (mut writer, reader) = table("tagged");
        let index = reader.index(tags);
        let (mut staged, mut committed) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Insert(key, tags) => {
                    writer.insert(Tagged(key, tags.clone()));
                    staged.insert(key, tags);
                }
                Step::Remove(key) => {
                    writer.remove(&key);
                    staged.remove(&key);
                }
                Step::Commit => {
                    writer.commit();
                    committed = staged.clone();
                }
                Step::Look(tag) => {
                    let found: Vec<_> = index.get(&tag).iter().map(|row| row.0).collect();
                    let scanned: Vec<_> = committed.iter().filter(|(_, tags)| tags.contains(&tag)).map(|(key, _)| *key).collect();
                    prop_assert_eq!(found, scanned);
                }
            }
        }
        for tag in 0..5 {
            index.get(&tag);
        }
        let tags_left: BTreeSet<_> = reader.snapshot().iter().flat_map(|row| row.1.clone()).collect();
        prop_assert_eq!(index.shared.lock().rows.keys().copied().collect::<BTreeSet<_>>(), tags_left, "nothing is kept of rows that are gone");
    }
}
