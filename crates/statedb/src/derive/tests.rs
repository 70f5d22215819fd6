// SPDX-License-Identifier: Apache-2.0
//! Derived and merged tables against what a naive map says, over random histories.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::FutureExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Derived, Inputs, derive, merge};
use crate::{Reader, Row, Snapshot, Tasks, Writer, table};

#[derive(Clone, Debug, PartialEq)]
struct Pair(u8, u8);

impl Row for Pair {
    type Key = u8;
    fn key(&self) -> u8 {
        self.0
    }
}

fn tasks() -> Tasks {
    Tasks::new(CancellationToken::new())
}

fn content(snapshot: &Snapshot<Pair>) -> BTreeMap<u8, u8> {
    snapshot.iter().map(|row| (row.0, row.1)).collect()
}

/// The sum of all members of each group: `members` says who is in which, `weights` how much each counts. A group
/// without a member of known weight has no row.
fn sums(tasks: &Tasks, members: &Reader<Pair>, weights: &Reader<Pair>, asked: &Arc<Mutex<Vec<u8>>>) -> Derived<Pair> {
    let by_group = members.index(|member| [member.1]);
    let (groups, weight, asked) = (members.clone(), weights.clone(), Arc::clone(asked));
    let inputs = Inputs::of(members, |member| [member.1])
        .and(weights, move |weight| groups.snapshot().get(&weight.0).map(|member| member.1));
    derive(tasks, "sums", inputs, move |group, _| {
        asked.lock().push(*group);
        let weights = weight.snapshot();
        let counted = by_group.get(group).into_iter().filter_map(|member| weights.get(&member.0));
        counted.map(|weight| weight.1).reduce(u8::wrapping_add).map(|sum| Pair(*group, sum))
    })
}

fn naive_sums(members: &BTreeMap<u8, u8>, weights: &BTreeMap<u8, u8>) -> BTreeMap<u8, u8> {
    let mut sums = BTreeMap::new();
    for (member, group) in members {
        if let Some(weight) = weights.get(member) {
            let sum = sums.entry(*group).or_insert(0_u8);
            *sum = sum.wrapping_add(*weight);
        }
    }
    sums
}

#[tokio::test]
async fn a_derived_table_is_empty_until_all_inputs_are_complete_and_complete_with_its_first_rows() {
    let ((mut members, member_rows), (mut weights, weight_rows)) = (table("members"), table("weights"));
    let tasks = tasks();
    let sums = sums(&tasks, &member_rows, &weight_rows, &Arc::default());
    let mut changes = sums.rows.subscribe();
    members.insert(Pair(1, 9));
    members.mark_initialized();
    weights.insert(Pair(1, 5));
    weights.commit();
    sums.caught_up().await;
    assert!(changes.next().now_or_never().is_none());
    weights.mark_initialized();
    let first = changes.next().await;
    assert!(first.initialized);
    assert_eq!(content(changes.snapshot()), [(9, 5)].into());
}

#[tokio::test]
async fn only_what_a_change_bears_on_is_derived_anew() {
    let ((mut members, member_rows), (mut weights, weight_rows)) = (table("members"), table("weights"));
    members.replace((0..100).map(|n| Pair(n, n)));
    members.mark_initialized();
    weights.replace((0..100).map(|n| Pair(n, n)));
    weights.mark_initialized();
    let (tasks, asked) = (tasks(), Arc::default());
    let sums = sums(&tasks, &member_rows, &weight_rows, &asked);
    sums.caught_up().await;
    assert_eq!(std::mem::take(&mut *asked.lock()).len(), 100);
    members.insert(Pair(7, 8));
    members.commit();
    weights.remove(&50);
    weights.commit();
    sums.caught_up().await;
    assert_eq!(*asked.lock(), [7, 8, 50]);
}

#[tokio::test]
async fn a_row_is_derived_from_what_it_was() {
    let (mut writer, reader) = table("pairs");
    writer.mark_initialized();
    let tasks = tasks();
    let highest = derive(&tasks, "highest", Inputs::of(&reader, |row: &Pair| [row.0]), {
        let reader = reader.clone();
        move |key, before| {
            let now = reader.snapshot().get(key).map(|row| row.1);
            now.max(before.map(|row: &Pair| row.1)).map(|value| Pair(*key, value))
        }
    });
    for value in [3, 9, 4] {
        writer.insert(Pair(1, value));
        writer.commit();
        highest.caught_up().await;
    }
    assert_eq!(content(&highest.rows.snapshot()), [(1, 9)].into());
}

#[tokio::test]
async fn nothing_merged_is_complete_and_empty() {
    let tasks = tasks();
    let merged = merge::<Pair>(&tasks, "merged", []);
    merged.caught_up().await;
    let rows = merged.rows.snapshot();
    assert!(rows.initialized() && rows.is_empty());
}

#[tokio::test]
async fn what_nets_to_the_same_row_is_no_change() {
    let ((mut a, first), (mut b, second)) = (table("a"), table("b"));
    let tasks = tasks();
    let merged = merge(&tasks, "merged", [first, second]);
    a.insert(Pair(1, 1));
    a.mark_initialized();
    b.mark_initialized();
    merged.caught_up().await;
    let before = merged.rows.snapshot();
    b.insert(Pair(1, 2));
    b.commit();
    merged.caught_up().await;
    let after = merged.rows.snapshot();
    assert_eq!((content(&after), after.revision()), ([(1, 1)].into(), before.revision()));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u8, u8),
    Remove(usize, u8),
    Commit(usize),
    Initialize(usize),
    Settle,
}

fn step(tables: usize) -> impl Strategy<Value = Step> {
    let (table, key) = (0..tables, 0..6_u8);
    prop_oneof![
        6 => (table.clone(), key.clone(), 0..4_u8).prop_map(|(t, k, v)| Step::Insert(t, k, v)),
        3 => (table.clone(), key).prop_map(|(t, k)| Step::Remove(t, k)),
        4 => table.clone().prop_map(Step::Commit),
        2 => table.prop_map(Step::Initialize),
        2 => Just(Step::Settle),
    ]
}

/// Tables, and what a naive model holds of each: what is staged, what is committed, whether it is complete.
struct World {
    writers: Vec<Writer<Pair>>,
    staged: Vec<BTreeMap<u8, u8>>,
    committed: Vec<BTreeMap<u8, u8>>,
    complete: BTreeSet<usize>,
}

impl World {
    fn new(tables: usize) -> (Self, Vec<Reader<Pair>>) {
        let (writers, readers) = (0..tables).map(|_| table("pairs")).unzip();
        let empty = vec![BTreeMap::new(); tables];
        (Self { writers, staged: empty.clone(), committed: empty, complete: BTreeSet::new() }, readers)
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Insert(table, key, value) => {
                self.writers.get_mut(table).unwrap().insert(Pair(key, value));
                self.staged.get_mut(table).unwrap().insert(key, value);
            }
            Step::Remove(table, key) => {
                self.writers.get_mut(table).unwrap().remove(&key);
                self.staged.get_mut(table).unwrap().remove(&key);
            }
            Step::Commit(table) => {
                self.writers.get_mut(table).unwrap().commit();
                self.committed.get_mut(table).unwrap().clone_from(self.staged.get(table).unwrap());
            }
            Step::Initialize(table) => {
                self.play(&Step::Commit(table));
                self.writers.get_mut(table).unwrap().mark_initialized();
                self.complete.insert(table);
            }
            Step::Settle => {}
        }
    }

    /// Plays a history and compares a derived table with what the model says whenever it has caught up. Without that,
    /// many changes come together.
    fn compare(
        mut self,
        steps: &[Step],
        derived: impl FnOnce(&Tasks) -> Derived<Pair>,
        naive: impl Fn(&[BTreeMap<u8, u8>]) -> BTreeMap<u8, u8>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let tasks = tasks();
            let derived = derived(&tasks);
            for step in steps.iter().chain([&Step::Settle]) {
                self.play(step);
                if matches!(step, Step::Settle) {
                    derived.caught_up().await;
                    let (rows, complete) = (derived.rows.snapshot(), self.complete.len() == self.writers.len());
                    let wanted = if complete { naive(&self.committed) } else { BTreeMap::new() };
                    assert_eq!((content(&rows), rows.initialized()), (wanted, complete));
                }
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn increments_add_up_to_what_deriving_from_scratch_gives(steps in proptest::collection::vec(step(2), 0..80)) {
        let (world, readers) = World::new(2);
        let [members, weights] = readers.as_slice() else { unreachable!() };
        world.compare(
            &steps,
            |tasks| sums(tasks, members, weights, &Arc::default()),
            |tables| match tables {
                [members, weights] => naive_sums(members, weights),
                _ => unreachable!(),
            },
        );
    }

    #[test]
    fn of_several_tables_the_first_that_has_a_row_counts(steps in proptest::collection::vec(step(3), 0..80)) {
        let (world, readers) = World::new(3);
        world.compare(
            &steps,
            |tasks| merge(tasks, "merged", readers),
            |tables| tables.iter().rev().flatten().map(|(key, value)| (*key, *value)).collect(),
        );
    }
}
