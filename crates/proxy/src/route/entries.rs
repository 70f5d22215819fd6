// SPDX-License-Identifier: Apache-2.0
//! Entries of one path or of one route. Mostly there is one, which takes no room of its own.

use super::paths::Entry;
use std::ops::Deref;
use std::sync::Arc;

/// Entries in order. A clone shares them.
#[derive(Clone, Debug, Default)]
pub(crate) enum Entries {
    #[default]
    None,
    One(Arc<Entry>),
    More(Arc<Vec<Arc<Entry>>>),
}

impl Entries {
    /// Puts one in before the first that is not before it.
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let entry = Arc::clone(entry);
        *self = match std::mem::take(self) {
            Self::None => Self::One(entry),
            Self::One(other) if other.order() <= entry.order() => Self::More(Arc::new(vec![other, entry])),
            Self::One(other) => Self::More(Arc::new(vec![entry, other])),
            Self::More(mut all) => {
                let at = all.partition_point(|other| other.order() <= entry.order());
                Arc::make_mut(&mut all).insert(at, entry);
                Self::More(all)
            }
        };
    }

    pub(super) fn remove(&mut self, entry: &Arc<Entry>) {
        *self = match std::mem::take(self) {
            Self::One(other) if Arc::ptr_eq(&other, entry) => Self::None,
            Self::More(mut all) => {
                Arc::make_mut(&mut all).retain(|other| !Arc::ptr_eq(other, entry));
                match all.as_slice() {
                    [one] => Self::One(Arc::clone(one)),
                    _ => Self::More(all),
                }
            }
            others => others,
        };
    }
}

impl Deref for Entries {
    type Target = [Arc<Entry>];

    fn deref(&self) -> &[Arc<Entry>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

impl FromIterator<Arc<Entry>> for Entries {
    fn from_iter<T: IntoIterator<Item = Arc<Entry>>>(entries: T) -> Self {
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one),
            (Some(one), Some(other)) => Self::More(Arc::new([one, other].into_iter().chain(entries).collect())),
        }
    }
}
