// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

pub use model::ConfigError;
use model::config::{Key, Reader, shared};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How health is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether it is at all (`enable-health-checking`).
    pub enabled: bool,
    /// Whether health endpoints are part of it (`enable-endpoint-health-checking`).
    pub endpoint: bool,
    /// Port of the responders, here and on all other nodes (`cluster-health-port`).
    pub port: u16,
    /// Echo requests without answer after which an address counts as unreachable (`health-check-icmp-failure-threshold`).
    pub icmp_threshold: u32,
    /// Where the API listens. Not a key of its own: it is in the agent's `state-dir`.
    pub socket: PathBuf,
}

const PORT: Key = Key::new("cluster-health-port", "TCP port on which nodes and health endpoints answer probes", "4240");
const ICMP_THRESHOLD: Key = Key::new(
    "health-check-icmp-failure-threshold",
    "echo requests that are sent before an address counts as unreachable",
    "3",
);

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] =
        &[shared::ENABLE_HEALTH_CHECKING, shared::ENABLE_ENDPOINT_HEALTH_CHECKING, PORT, ICMP_THRESHOLD];

    /// Types the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let config = Self::read(&mut read);
        read.finish(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        let enabled = read.flag(&shared::ENABLE_HEALTH_CHECKING);
        let within = |text: &str, most: u32| text.parse().ok().filter(|number| (1..=most).contains(number));
        let port = read.read(&PORT, "a port", |text| within(text, 65535).and_then(|port| u16::try_from(port).ok()));
        let threshold = read.read(&ICMP_THRESHOLD, "a number from 1 to 100", |text| within(text, 100));
        Self {
            enabled,
            endpoint: read.flag(&shared::ENABLE_ENDPOINT_HEALTH_CHECKING) && enabled,
            port: port.unwrap_or_default(),
            icmp_threshold: threshold.unwrap_or_default(),
            socket: PathBuf::from("/var/run/cilium/health.sock"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn health_endpoints_are_probed_only_if_nodes_are() {
        let config = parse(&[]).unwrap();
        assert!(config.enabled && config.endpoint);
        assert!(!parse(&[("enable-endpoint-health-checking", "false")]).unwrap().endpoint);
        assert!(!parse(&[("enable-health-checking", "false")]).unwrap().endpoint);
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
        assert_eq!(parse(&[]).unwrap(), Config::default());
        assert_eq!((Config::default().port, Config::default().icmp_threshold), (4240, 3));
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let errors =
            parse(&[("cluster-health-port", "0"), ("health-check-icmp-failure-threshold", "many")]).unwrap_err();
        assert_eq!(errors[0].to_string(), "configuration key cluster-health-port: \"0\" is not a port");
        assert_eq!(errors[1].key, "health-check-icmp-failure-threshold");
    }
}
