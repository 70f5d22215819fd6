// SPDX-License-Identifier: Apache-2.0
//! Typed access to configuration values that collects what is wrong with them.

use super::Error;
use ipnet::IpNet;
use model::config::{duration, listen_address, words};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// Values by key, and the errors so far.
pub(super) struct Values {
    defaults: BTreeMap<&'static str, &'static str>,
    given: BTreeMap<String, String>,
    errors: Vec<Error>,
}

impl Values {
    pub(super) fn new(keys: &[(&'static str, &'static str, &'static str)], given: BTreeMap<String, String>) -> Self {
        let defaults = keys.iter().map(|(key, _, default)| (*key, *default)).collect();
        Self { defaults, given, errors: Vec::new() }
    }

    /// The result, unless something was wrong.
    pub(super) fn finish<T>(self, result: T) -> Result<T, Vec<Error>> {
        if self.errors.is_empty() { Ok(result) } else { Err(self.errors) }
    }

    pub(super) fn wrong(&mut self, key: &str, reason: impl Display) {
        let error = Error { key: key.to_owned(), reason: reason.to_string() };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    pub(super) fn text(&self, key: &str) -> String {
        let given = self.given.get(key).map(String::as_str).filter(|v| !v.is_empty());
        given.or_else(|| self.defaults.get(key).copied()).unwrap_or_default().to_owned()
    }

    pub(super) fn optional(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        match self.text(key).parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(key, error);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        match self.text(key).as_str() {
            "true" => true,
            "false" => false,
            other => {
                let reason = format!("{other:?} is neither true nor false");
                self.wrong(key, reason);
                false
            }
        }
    }

    pub(super) fn number<T: FromStr + Default>(&mut self, key: &str) -> T {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| {
            self.wrong(key, format!("{text:?} is not a number that is possible here"));
            T::default()
        })
    }

    /// Values with commas or blanks between.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        words(&self.text(key)).into_iter().map(str::to_owned).collect()
    }

    pub(super) fn prefixes(&mut self, key: &str, ipv6: bool) -> Vec<IpNet> {
        let mut prefixes = Vec::new();
        for item in self.list(key) {
            match item.parse::<IpNet>() {
                Ok(prefix) if matches!(prefix, IpNet::V6(_)) == ipv6 => prefixes.push(prefix),
                _ => {
                    let family = if ipv6 { "IPv6" } else { "IPv4" };
                    self.wrong(key, format!("{item:?} is not an {family} prefix"));
                }
            }
        }
        prefixes
    }

    /// An address to listen on; without a host it is all of them.
    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.optional(key)?;
        let address = listen_address(&text.replace("localhost:", "127.0.0.1:"));
        if address.is_none() {
            self.wrong(key, format!("{text:?} is not an address and port to listen on"));
        }
        address
    }

    pub(super) fn duration(&mut self, key: &str) -> Duration {
        let text = self.text(key);
        duration(&text).unwrap_or_else(|| {
            self.wrong(key, format!("{text:?} is not a duration such as 1h30m or 15s"));
            Duration::ZERO
        })
    }

    /// A duration of which zero means never.
    pub(super) fn interval(&mut self, key: &str) -> Option<Duration> {
        Some(self.duration(key)).filter(|interval| !interval.is_zero())
    }
}
