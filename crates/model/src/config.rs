// SPDX-License-Identifier: Apache-2.0
//! Configuration keys. A key is declared once, by [`keys!`], as a field of its feature's structure; values that the chart or flags
//! give are read into that, with every error collected.

mod arguments;
mod declare;
mod key;
mod label;
mod log_option;
pub mod operator;
pub mod shared;
mod text;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use crate::__config_keys as keys;
pub use arguments::Arguments;
pub use key::{AnyKey, Chart, Key, Source};
pub use label::Label;
pub use log_option::{LogLevel, LogOption};
pub use text::{duration, duration_of, duration_text, listen_address, unit_seconds, words};
pub use value::{Accepts, Choice, Field, Form, Value, Verbatim};

/// A value that its key does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {value:?} is not {want}")]
pub struct ConfigError {
    pub key: &'static str,
    pub value: String,
    /// What is accepted.
    pub want: Cow<'static, str>,
}

/// Everything wrong with a configuration, each error once: several readers may have read the same key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used:{}", lines(.0))]
pub struct ConfigErrors(Vec<ConfigError>);

impl From<Vec<ConfigError>> for ConfigErrors {
    fn from(all: Vec<ConfigError>) -> Self {
        let mut errors = Vec::new();
        for error in all {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        Self(errors)
    }
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

/// Keys declared together, with [`keys!`].
pub trait Group: Sized {
    fn keys() -> Vec<AnyKey>;

    /// Reads them, noting what is wrong.
    fn read(reader: &mut Reader<'_>) -> Self;

    /// Parses them from texts by key.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, alone or together with others.
    fn parse(values: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut reader = Reader::new(values);
        let group = Self::read(&mut reader);
        reader.finish(group)
    }
}

/// All values as given, whether or not their keys are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(pub BTreeMap<String, String>);

impl Group for Given {
    fn keys() -> Vec<AnyKey> {
        Vec::new()
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        Self(reader.values.clone())
    }
}

/// Reads keys one by one and collects what is wrong with their values. A key with an empty value counts as missing and
/// has its default. So does one whose value is invalid, so that whatever depends on it is not rejected as well.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    values: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// A reader of these values.
    #[must_use]
    pub const fn new(values: &'a BTreeMap<String, String>) -> Self {
        Self { values, errors: Vec::new() }
    }

    /// The result, unless some value could not be used.
    ///
    /// # Errors
    ///
    /// Every value that could not be used, in reading order.
    pub fn finish<T>(self, result: T) -> Result<T, Vec<ConfigError>> {
        if self.errors.is_empty() { Ok(result) } else { Err(self.errors) }
    }

    /// The value of a key.
    pub fn get<T: Field>(&mut self, key: &Key<T>) -> T {
        T::read(self, key)
    }

    /// Records that a value cannot be used, alone or together with others.
    pub fn refuse(&mut self, key: &'static str, value: &str, want: impl Into<Cow<'static, str>>) {
        self.errors.push(ConfigError { key, value: value.to_owned(), want: want.into() });
    }

    /// Whether the key's value has been rejected.
    #[must_use]
    pub fn has_refused(&self, key: &str) -> bool {
        self.errors.iter().any(|error| error.key == key)
    }

    /// The text of a key if it is set, trimmed.
    #[must_use]
    pub fn given(&self, key: &str) -> Option<&'a str> {
        self.values.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests;
