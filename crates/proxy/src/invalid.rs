// SPDX-License-Identifier: Apache-2.0
//! Why an object cannot be put into force.

/// A field of an object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct Invalid {
    field: String,
    reason: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, reason: impl ToString) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

/// Names the field of what could not be parsed.
pub(crate) trait InField<T> {
    fn in_field(self, field: &str) -> Result<T, Invalid>;
}

impl<T, E: ToString> InField<T> for Result<T, E> {
    fn in_field(self, field: &str) -> Result<T, Invalid> {
        self.map_err(|error| Invalid::new(field, error.to_string()))
    }
}
