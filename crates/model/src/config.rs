// SPDX-License-Identifier: Apache-2.0
//! Configuration keys: text values by key, as the chart writes them, read into types with every error collected.

mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use value::{duration, duration_of, listen_address, unit_seconds, words};

/// A value that does not fit its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {value:?} is not {want}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would be accepted.
    pub want: &'static str,
}

/// Reads keys one by one and collects what is wrong with their values. A key without a value is like a missing one.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    keys: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// A reader of these keys.
    #[must_use]
    pub const fn new(keys: &'a BTreeMap<String, String>) -> Self {
        Self { keys, errors: Vec::new() }
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
    pub fn refuse(&mut self, key: &'static str, value: &str, want: &'static str) {
        self.errors.push(ConfigError { key, value: value.to_owned(), want });
    }

    /// The value, without white space around it.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.keys.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value's items, with commas or white space between.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<&'a str> {
        self.text(key).map(words).unwrap_or_default()
    }

    /// A value of any type; `want` says what `parse` accepts.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        want: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(text);
        if value.is_none() {
            self.refuse(key, text, want);
        }
        value
    }

    /// A value of a type that has a text form.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, want: &'static str) -> Option<T> {
        self.read(key, want, |text| text.parse().ok())
    }

    /// A number.
    pub fn number<T: FromStr>(&mut self, key: &'static str) -> Option<T> {
        self.parsed(key, "a number in range")
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.parsed(key, "\"true\" or \"false\"").unwrap_or(default)
    }

    /// One of several names.
    pub fn choice<T: Copy>(&mut self, key: &'static str, want: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, want, |text| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value))
    }

    /// An absolute path.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.read(key, "an absolute path", |text| Path::new(text).is_absolute().then(|| text.into()))
    }

    /// A duration; see [`duration`].
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.read(key, "a duration such as 5s or 1m30s", duration)
    }

    /// An address to listen on; see [`listen_address`].
    pub fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        self.read(key, "an address and port such as :4244", listen_address)
    }
}

#[cfg(test)]
mod tests;
