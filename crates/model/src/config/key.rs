// SPDX-License-Identifier: Apache-2.0
//! What people read of a configuration key: the flag's help and the reference are made of it, and readers take the default
//! from it, so that none of the three can say something else.

/// A configuration key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name, in the ConfigMap and as a flag.
    pub name: &'static str,
    /// What it is for, as a fragment of a sentence.
    pub meaning: &'static str,
    /// The value of a key that is not set; empty when there is none.
    pub default: &'static str,
}

impl Key {
    /// A key.
    #[must_use]
    pub const fn new(name: &'static str, meaning: &'static str, default: &'static str) -> Self {
        Self { name, meaning, default }
    }

    /// Whether it is on or off: as a flag it needs no value.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        matches!(self.default, "true" | "false")
    }
}
