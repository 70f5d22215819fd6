// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

pub use model::ConfigError;
use model::config::{Key, Reader, shared};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

/// How pods are attached to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Runtime folder, below which state and the queue of deletions are (`state-dir`).
    pub runtime: PathBuf,
    /// The CNI configuration to write once the agent can serve (`write-cni-conf-when-ready`).
    pub conflist: Option<PathBuf>,
    /// Whether configurations of others are put aside (`cni-exclusive`).
    pub exclusive: bool,
    /// Whether the node is cleaned when the product is uninstalled (`cni-uninstall`).
    pub uninstall: bool,
    /// The plugin's log file on the host (`cni-log-file`).
    pub log_file: String,
    /// Whether the plugin logs details (`debug`).
    pub debug: bool,
    /// Whether pods get IPv4 addresses (`enable-ipv4`).
    pub ipv4: bool,
    /// Whether pods get IPv6 addresses (`enable-ipv6`).
    pub ipv6: bool,
    /// Whether IPv4 traffic that leaves the cluster is masqueraded (`enable-ipv4-masquerade`), for `GET /config`.
    pub masquerade_ipv4: bool,
    /// The same for IPv6 (`enable-ipv6-masquerade`).
    pub masquerade_ipv6: bool,
    /// Where pod CIDRs come from (`ipam`), for `GET /config`.
    pub ipam: String,
    /// Whether the node has a health endpoint (`enable-health-checking` and `enable-endpoint-health-checking`).
    pub health: bool,
    /// Whether CiliumEndpoint objects are written (not `disable-endpoint-crd`).
    pub cilium_endpoints: bool,
    /// How long ADD waits for a pod that the API server has not told of yet.
    pub pod_wait: Duration,
    /// How long ADD waits for policy and datapath.
    pub attach_wait: Duration,
    /// How long an address waits for the endpoint that asked for it.
    pub lease: Duration,
    /// All keys, for `GET /config`.
    pub keys: BTreeMap<String, String>,
}

const STATE_DIR: Key = Key::new(
    "state-dir",
    "folder of the agent's sockets, of the endpoints' state and of queued deletions",
    "/var/run/cilium",
);
const CONFLIST: Key = Key::new(
    "write-cni-conf-when-ready",
    "file to write the CNI configuration to once pods can be attached; none is written if empty",
    "",
);
const EXCLUSIVE: Key = Key::new("cni-exclusive", "put CNI configurations of others aside", "true");
pub(crate) const UNINSTALL: Key = Key::new(
    "cni-uninstall",
    "take the CNI configuration away whenever an agent's pod ends, and all else of the node, which cuts off the pods that run there, when the DaemonSet is deleted; if false, everything stays for the next agent",
    "false",
);
const LOG_FILE: Key = Key::new(
    "cni-log-file",
    "log file of the CNI plugin on the host; set to nothing, the plugin keeps none",
    "/var/run/cilium/cilium-cni.log",
);
const CHAINING: Key = Key::new("cni-chaining-mode", "chaining with other CNI plugins: only none is supported", "none");
const DEVICE: Key = Key::new("datapath-mode", "kind of the pods' devices: only veth is supported", "veth");

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] = &[
        STATE_DIR,
        CONFLIST,
        EXCLUSIVE,
        UNINSTALL,
        LOG_FILE,
        shared::DEBUG,
        shared::ENABLE_IPV4,
        shared::ENABLE_IPV6,
        shared::MASQUERADE_IPV4,
        shared::MASQUERADE_IPV6,
        shared::IPAM,
        shared::DISABLE_ENDPOINT_CRD,
        shared::ENABLE_HEALTH_CHECKING,
        shared::ENABLE_ENDPOINT_HEALTH_CHECKING,
        CHAINING,
        DEVICE,
    ];

    /// Types the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let config = Self { keys: keys.clone(), ..Self::read(&mut read) };
        read.choice(&CHAINING, "\"none\": chaining is not supported", &[("none", ())]);
        read.choice(&DEVICE, "\"veth\"", &[("veth", ())]);
        read.finish(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        Self {
            runtime: read.path(&STATE_DIR).unwrap_or_default(),
            conflist: read.path(&CONFLIST),
            exclusive: read.flag(&EXCLUSIVE),
            uninstall: read.flag(&UNINSTALL),
            log_file: read.verbatim(&LOG_FILE).to_owned(),
            debug: read.flag(&shared::DEBUG),
            ipv4: read.flag(&shared::ENABLE_IPV4),
            ipv6: read.flag(&shared::ENABLE_IPV6),
            masquerade_ipv4: read.flag(&shared::MASQUERADE_IPV4),
            masquerade_ipv6: read.flag(&shared::MASQUERADE_IPV6),
            ipam: read.text(&shared::IPAM).unwrap_or_default().to_owned(),
            health: [shared::ENABLE_HEALTH_CHECKING, shared::ENABLE_ENDPOINT_HEALTH_CHECKING]
                .iter()
                .all(|key| read.flag(key)),
            cilium_endpoints: !read.flag(&shared::DISABLE_ENDPOINT_CRD),
            pod_wait: Duration::from_secs(5),
            attach_wait: Duration::from_secs(30),
            lease: Duration::from_secs(10 * 60),
            keys: BTreeMap::new(),
        }
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

    /// Forgets all endpoints and queued deletions, of a node that is cleaned.
    ///
    /// # Errors
    ///
    /// A folder cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        for folder in [self.state(), self.queue()] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
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
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        let parsed = Config { keys: BTreeMap::new(), ..Config::parse(&documented).unwrap() };
        assert_eq!(parsed, parse(&[]).unwrap());
        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn a_log_file_of_no_name_is_none() {
        assert_eq!(parse(&[("cni-log-file", " ")]).unwrap().log_file, "");
        assert_eq!(parse(&[]).unwrap().log_file, "/var/run/cilium/cilium-cni.log");
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
