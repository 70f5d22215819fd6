// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::{keys, shared};

keys! {
    /// How health is probed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        #[key(shared::ENABLE_HEALTH_CHECKING)]
        pub enabled: bool,
        #[key(shared::ENABLE_ENDPOINT_HEALTH_CHECKING)]
        pub health_endpoints: bool,
        /// TCP port on which nodes and health endpoints answer probes.
        #[key("cluster-health-port", default = "4240", within = 1..=65535, want = "a port")]
        pub port: u16,
        /// Echo requests that are sent before an address counts as unreachable.
        #[key(
            "health-check-icmp-failure-threshold",
            default = "3",
            value = "healthCheckICMPFailureThreshold",
            schema = r#"{"type": "integer", "minimum": 1}"#,
            within = 1..=100,
        )]
        pub icmp_threshold: u32,
    }
}

impl Config {
    /// Whether health endpoints are probed.
    #[must_use]
    pub const fn probes_endpoints(&self) -> bool {
        self.enabled && self.health_endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::{ConfigError, Group};

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn health_endpoints_are_probed_only_if_nodes_are() {
        let config = parse(&[]).unwrap();
        assert!(config.enabled && config.probes_endpoints());
        assert!(!parse(&[("enable-endpoint-health-checking", "false")]).unwrap().probes_endpoints());
        assert!(!parse(&[("enable-health-checking", "false")]).unwrap().probes_endpoints());
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
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
