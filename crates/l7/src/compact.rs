// SPDX-License-Identifier: Apache-2.0
//! Values that take little room, since there may be hundreds of thousands of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// A value that mostly is its default, and takes room only if it is not. A clone shares it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "T", bound(deserialize = "T: Deserialize<'de> + Default + PartialEq"))]
pub struct Rare<T>(Option<Arc<T>>);

impl<T> Rare<T> {
    /// The value, unless it is the default.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// Whether it is the default.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: Clone + Default> Rare<T> {
    /// The value.
    #[must_use]
    pub fn value(&self) -> T {
        self.get().cloned().unwrap_or_default()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default + PartialEq> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != T::default()).then(|| Arc::new(value)))
    }
}

impl<T: Default + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => T::default().serialize(serializer),
        }
    }
}

/// Reads a list and keeps no room for more: one that grows has room for four from its first item on.
pub(crate) fn exact<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::{Rare, exact};
    use serde_json::{from_str, json, to_value};

    #[test]
    fn a_default_takes_no_room_wherever_it_comes_from() {
        let [made, read] = [Rare::from(0_u32), from_str("0").unwrap()];
        assert!(made.is_default() && read.is_default() && made == read && made == Rare::default());
        assert_eq!((made.get(), made.value(), to_value(&made).unwrap()), (None, 0, json!(0)));
        let other: Rare<u32> = from_str("7").unwrap();
        assert_eq!((other.get(), other.value(), to_value(&other).unwrap()), (Some(&7), 7, json!(7)));
    }

    #[test]
    fn a_list_that_is_read_has_room_for_what_is_in_it() {
        let list: Vec<u64> = exact(&mut serde_json::Deserializer::from_str("[1]")).unwrap();
        assert_eq!((list.len(), list.capacity()), (1, 1));
    }
}
