// SPDX-License-Identifier: Apache-2.0
//! A sequence that cannot be empty, so that "any of these" never means "any" by accident.

/// One or more values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NonEmpty<T> {
    first: T,
    rest: Vec<T>,
}

impl<T> NonEmpty<T> {
    /// Exactly one.
    pub const fn one(first: T) -> Self {
        Self { first, rest: Vec::new() }
    }

    /// `None` when there is nothing.
    pub fn new(values: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut values = values.into_iter();
        Some(Self { first: values.next()?, rest: values.collect() })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl<T: Ord> NonEmpty<T> {
    /// In order and without repetition.
    #[must_use]
    pub fn sorted(self) -> Self {
        let mut all: Vec<T> = std::iter::once(self.first).chain(self.rest).collect();
        all.sort();
        all.dedup();
        let first = all.remove(0);
        Self { first, rest: all }
    }
}
