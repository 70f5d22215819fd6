// SPDX-License-Identifier: Apache-2.0
//! Configuration keys: what each means and what it is by default, and text values by key, as the chart writes them, read
//! into types with every error collected.

mod arguments;
mod key;
pub mod operator;
pub mod shared;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use arguments::Arguments;
pub use key::Key;
pub use value::{duration, duration_of, duration_text, listen_address, unit_seconds, words};

/// A value that does not fit its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {value:?} is not {want}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would be accepted.
    pub want: Cow<'static, str>,
}

/// All that is wrong with a configuration, each error once: several readers may have met the same key.
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

/// Reads keys one by one and collects what is wrong with their values. A key without a value is like a missing one: it has
/// its default. So has one whose value cannot be used, in order that what depends on it is not refused as well.
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
    /// Every value that could not be used, in the order in which they were read.
    pub fn finish<T>(self, result: T) -> Result<T, Vec<ConfigError>> {
        if self.errors.is_empty() { Ok(result) } else { Err(self.errors) }
    }

    /// Notes that a value cannot be used, alone or together with others.
    pub fn refuse(&mut self, key: &Key, value: &str, want: impl Into<Cow<'static, str>>) {
        self.errors.push(ConfigError { key: key.name, value: value.to_owned(), want: want.into() });
    }

    /// The value, without white space around it; the default only of a key that is missing, so that a value may be empty.
    #[must_use]
    pub fn verbatim(&self, key: &Key) -> &'a str {
        self.values.get(key.name).map_or(key.default, |value| value.trim())
    }

    /// The value, without white space around it.
    #[must_use]
    pub fn text(&self, key: &Key) -> Option<&'a str> {
        self.given(key).or_else(|| Some(key.default).filter(|default| !default.is_empty()))
    }

    fn given(&self, key: &Key) -> Option<&'a str> {
        self.values.get(key.name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value's items, with commas or white space between.
    #[must_use]
    pub fn list(&self, key: &Key) -> Vec<&'a str> {
        self.text(key).map(words).unwrap_or_default()
    }

    /// A value of any type; `want` says what `parse` accepts. There is none only where there is no default either.
    pub fn read<T>(&mut self, key: &Key, want: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        if let Some(given) = self.given(key) {
            match parse(given) {
                Some(value) => return Some(value),
                None => self.refuse(key, given, want),
            }
        }
        if key.default.is_empty() {
            return None;
        }
        let value = parse(key.default);
        if value.is_none() {
            self.refuse(key, key.default, want);
        }
        value
    }

    /// A value of a type that has a text form.
    pub fn parsed<T: FromStr>(&mut self, key: &Key, want: &'static str) -> Option<T> {
        self.read(key, want, |text| text.parse().ok())
    }

    /// A number.
    pub fn number<T: FromStr>(&mut self, key: &Key) -> Option<T> {
        self.parsed(key, "a number in range")
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &Key) -> bool {
        self.parsed(key, "\"true\" or \"false\"").unwrap_or_default()
    }

    /// One of several names.
    pub fn choice<T: Copy>(&mut self, key: &Key, want: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, want, |text| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value))
    }

    /// An absolute path.
    pub fn path(&mut self, key: &Key) -> Option<PathBuf> {
        self.read(key, "an absolute path", |text| Path::new(text).is_absolute().then(|| text.into()))
    }

    /// A duration; see [`duration`].
    pub fn duration(&mut self, key: &Key) -> Option<Duration> {
        self.read(key, "a duration such as 5s or 1m30s", duration)
    }

    /// An address to listen on; see [`listen_address`].
    pub fn address(&mut self, key: &Key) -> Option<SocketAddr> {
        self.read(key, "an address and port such as :4244", listen_address)
    }
}

#[cfg(test)]
mod tests;
