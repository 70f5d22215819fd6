// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::shared::{self, Ipam};
use model::config::{AnyKey, Choice, Given, Group, Key, Reader, Verbatim, keys};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

/// `cni-uninstall`
pub(crate) const UNINSTALL: Key<bool> = Key::new(
    "cni-uninstall",
    "Take the CNI configuration away whenever an agent's pod ends, and all else of the node, which cuts off the pods that \
     run there, when the DaemonSet is deleted; if false, everything stays for the next agent",
)
.default("false")
.value("cni.uninstall");

keys! {
    /// How pods are attached to this node.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Folder of the agent's sockets, of the endpoints' state and of queued deletions.
        #[key("state-dir", default = "/var/run/cilium")]
        pub runtime: PathBuf,
        /// File to write the CNI configuration to once pods can be attached; none is written if empty.
        #[key("write-cni-conf-when-ready", always = "/host/etc/cni/net.d/05-cilium.conflist")]
        pub conflist: Option<PathBuf>,
        /// Put CNI configurations of others aside.
        #[key("cni-exclusive", default = "true", value = "cni.exclusive")]
        pub exclusive: bool,
        #[key(UNINSTALL)]
        pub uninstall: bool,
        /// Log file of the CNI plugin on the host; set to nothing, the plugin keeps none.
        #[key("cni-log-file", default = "/var/run/cilium/cilium-cni.log", value = "cni.logFile")]
        pub log_file: Verbatim,
        #[key(shared::DEBUG)]
        pub debug: bool,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        #[key(shared::MASQUERADE_IPV4)]
        pub masquerade_ipv4: bool,
        #[key(shared::MASQUERADE_IPV6)]
        pub masquerade_ipv6: bool,
        #[key(shared::IPAM)]
        pub ipam: Ipam,
        #[key(shared::CLUSTER_NAME)]
        pub cluster_name: String,
        #[key(shared::DISABLE_ENDPOINT_CRD)]
        pub disable_cilium_endpoints: bool,
        #[key(shared::ENABLE_HEALTH_CHECKING)]
        pub health_checking: bool,
        #[key(shared::ENABLE_ENDPOINT_HEALTH_CHECKING)]
        pub endpoint_health_checking: bool,
        /// Chaining with other CNI plugins: only none is supported.
        #[key("cni-chaining-mode", default = "none", always = "none")]
        pub chaining: NoChaining,
        /// Kind of the pods' devices: only veth is supported.
        #[key("datapath-mode", default = "veth")]
        pub device: Veth,
        /// Every value, for `GET /config`.
        pub given: Given,
        /// How long things may take. No key sets them.
        pub waits: Waits,
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// For a pod that the API server has not told of yet.
    pub pod: Duration,
    /// For policy and datapath of a new endpoint.
    pub attach: Duration,
    /// For the endpoint that asked for an address.
    pub lease: Duration,
}

impl Group for Waits {
    fn keys() -> Vec<AnyKey> {
        Vec::new()
    }

    fn read(_: &mut Reader<'_>) -> Self {
        Self { pod: Duration::from_secs(5), attach: Duration::from_secs(30), lease: Duration::from_secs(10 * 60) }
    }
}

/// The only way of chaining.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoChaining;

impl Choice for NoChaining {
    const WANT: &'static str = "\"none\": chaining is not supported";
    const NAMES: &'static [(&'static str, Self)] = &[("none", Self)];
}

/// The only kind of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Veth;

impl Choice for Veth {
    const WANT: &'static str = "\"veth\"";
    const NAMES: &'static [(&'static str, Self)] = &[("veth", Self)];
}

impl Config {
    /// Whether the node has a health endpoint.
    pub(crate) const fn health_endpoint(&self) -> bool {
        self.health_checking && self.endpoint_health_checking
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
    use super::*;
    use model::config::ConfigError;
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
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        let parsed = Config { given: Given::default(), ..Config::parse(&documented).unwrap() };
        assert_eq!(parsed, parse(&[]).unwrap());
        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn a_log_file_of_no_name_is_none() {
        assert_eq!(parse(&[("cni-log-file", " ")]).unwrap().log_file.0, "");
        assert_eq!(parse(&[]).unwrap().log_file.0, "/var/run/cilium/cilium-cni.log");
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
