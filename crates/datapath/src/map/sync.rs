// SPDX-License-Identifier: Apache-2.0
//! Making a map equal to what is desired.

use std::collections::HashMap;

use crate::map::raw::bytes_of;
use crate::{Error, Result, Table};

/// What [`sync_map`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Entries that were missing.
    pub inserted: usize,
    /// Entries that had another value.
    pub updated: usize,
    /// Entries that nobody wants.
    pub removed: usize,
    /// Entries left alone.
    pub unchanged: usize,
}

impl Diff {
    /// Whether the map was touched.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        self.inserted + self.updated + self.removed > 0
    }
}

/// Makes the map equal to `desired`, touching only what differs. Of two values for a key the last counts.
///
/// What is missing is added before what is superfluous is removed, so that no packet meets a gap; only when the map has
/// no room for both is it the other way round. After an error the map is between the two states, and calling again goes on.
pub fn sync_map<T: Table>(map: &T, desired: impl IntoIterator<Item = (T::Key, T::Value)>) -> Result<Diff> {
    let mut present: HashMap<Box<[u8]>, (T::Key, T::Value)> =
        map.entries()?.into_iter().map(|entry| (bytes_of(&entry.0).into(), entry)).collect();
    let desired: HashMap<Box<[u8]>, (T::Key, T::Value)> =
        desired.into_iter().map(|entry| (bytes_of(&entry.0).into(), entry)).collect();
    let mut diff = Diff::default();
    let mut without_room = Vec::new();
    for (bytes, (key, value)) in desired {
        match present.remove(&bytes) {
            Some((_, old)) if old == value => diff.unchanged += 1,
            Some(_) => {
                map.insert(&key, &value)?;
                diff.updated += 1;
            }
            None => match map.insert(&key, &value) {
                Ok(()) => diff.inserted += 1,
                Err(Error::MapFull { .. }) => without_room.push((key, value)),
                Err(error) => return Err(error),
            },
        }
    }
    for (key, _) in present.into_values() {
        diff.removed += usize::from(map.remove(&key)?);
    }
    for (key, value) in without_room {
        map.insert(&key, &value)?;
        diff.inserted += 1;
    }
    Ok(diff)
}
