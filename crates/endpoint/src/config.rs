// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

pub use model::ConfigError;
use model::config::Reader;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How pods are attached to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Runtime folder, below which state and the queue of deletions are (`state-dir`).
    pub runtime: PathBuf,
    /// The CNI configuration to write once the agent can serve (`write-cni-conf-when-ready`).
    pub conflist: Option<PathBuf>,
    /// Whether configurations of others are put aside (`cni-exclusive`).
    pub exclusive: bool,
    /// The plugin's log file on the host (`cni-log-file`).
    pub log_file: String,
    /// Whether the plugin logs details (`debug`).
    pub debug: bool,
    /// Whether pods get IPv4 addresses (`enable-ipv4`).
    pub ipv4: bool,
    /// Whether pods get IPv6 addresses (`enable-ipv6`).
    pub ipv6: bool,
    /// Whether CiliumEndpoint objects are written (not `disable-endpoint-crd`).
    pub cilium_endpoints: bool,
    /// How long ADD waits for a pod that the API server has not told of yet.
    pub pod_wait: Duration,
    /// How long ADD waits for policy and datapath (`endpoint-policy-update-timeout`).
    pub attach_wait: Duration,
    /// How long an address waits for the endpoint that asked for it.
    pub lease: Duration,
    /// All keys, for `GET /config`.
    pub keys: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: PathBuf::from("/var/run/cilium"),
            conflist: None,
            exclusive: true,
            log_file: "/var/run/cilium/cilium-cni.log".to_owned(),
            debug: false,
            ipv4: true,
            ipv6: false,
            cilium_endpoints: true,
            pod_wait: Duration::from_secs(5),
            attach_wait: Duration::from_secs(30),
            lease: Duration::from_secs(10 * 60),
            keys: BTreeMap::new(),
        }
    }
}

const STATE_DIR: &str = "state-dir";
const CONFLIST: &str = "write-cni-conf-when-ready";
const EXCLUSIVE: &str = "cni-exclusive";
const LOG_FILE: &str = "cni-log-file";
const DEBUG: &str = "debug";
const IPV4: &str = "enable-ipv4";
const IPV6: &str = "enable-ipv6";
const NO_ENDPOINTS: &str = "disable-endpoint-crd";
const CHAINING: &str = "cni-chaining-mode";
const DEVICE: &str = "datapath-mode";

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[&str] =
        &[STATE_DIR, CONFLIST, EXCLUSIVE, LOG_FILE, DEBUG, IPV4, IPV6, NO_ENDPOINTS, CHAINING, DEVICE];

    /// Reads the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let default = Self::default();
        let config = Self {
            runtime: read.path(STATE_DIR).unwrap_or(default.runtime),
            conflist: read.path(CONFLIST),
            exclusive: read.flag(EXCLUSIVE, default.exclusive),
            log_file: keys.get(LOG_FILE).map_or(default.log_file, |v| v.trim().to_owned()),
            debug: read.flag(DEBUG, default.debug),
            ipv4: read.flag(IPV4, default.ipv4),
            ipv6: read.flag(IPV6, default.ipv6),
            cilium_endpoints: !read.flag(NO_ENDPOINTS, !default.cilium_endpoints),
            keys: keys.clone(),
            ..default
        };
        read.choice(CHAINING, "\"none\": chaining is not supported", &[("none", ())]);
        read.choice(DEVICE, "\"veth\"", &[("veth", ())]);
        read.finish(config)
    }

    /// Where endpoints are kept over a restart.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.runtime.join("state")
    }

    /// Where deletions wait for the agent.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.runtime.join("deleteQueue")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use std::path::Path;

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_charts_keys_are_read() {
        let config = parse(&[
            ("write-cni-conf-when-ready", "/host/etc/cni/net.d/05-cilium.conflist"),
            ("cni-exclusive", "false"),
            ("enable-ipv6", "true"),
            ("state-dir", "/run/x"),
            ("cni-chaining-mode", "none"),
        ])
        .unwrap();
        assert_eq!(config.conflist.as_deref(), Some(Path::new("/host/etc/cni/net.d/05-cilium.conflist")));
        assert!(!config.exclusive && config.ipv4 && config.ipv6);
        assert_eq!(config.queue(), Path::new("/run/x/deleteQueue"));
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let errors =
            parse(&[("cni-exclusive", "yes"), ("state-dir", "x"), ("cni-chaining-mode", "aws-cni")]).unwrap_err();
        assert_eq!(
            errors.iter().map(|e| e.key).collect::<Vec<_>>(),
            ["state-dir", "cni-exclusive", "cni-chaining-mode"]
        );
        assert_eq!(errors[1].to_string(), "configuration key cni-exclusive: \"yes\" is not \"true\" or \"false\"");
    }
}
