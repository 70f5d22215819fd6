// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

pub use model::ConfigError;
use model::config::Reader;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How Services are handled on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Translate when a socket connects. Without it, pods' packets are translated one by one on their way out, and the
    /// host's own traffic is left to kube-proxy.
    pub socket_lb: bool,
    /// Root of the cgroup v2 tree whose sockets are translated (`cgroup-root`).
    pub cgroup_root: PathBuf,
    /// Only Services labelled `service.kubernetes.io/service-proxy-name` with this value are handled; when empty, only
    /// Services without that label (`k8s-service-proxy-name`).
    pub proxy_name: String,
    /// Name of this node, for Services that want backends of the client's node only. Not a key of the chart: the agent
    /// knows it.
    pub node: String,
}

impl Default for Config {
    fn default() -> Self {
        let cgroup_root = PathBuf::from("/run/cilium/cgroupv2");
        Self { socket_lb: false, cgroup_root, proxy_name: String::new(), node: String::new() }
    }
}

const KUBE_PROXY_REPLACEMENT: &str = "kube-proxy-replacement";
const SOCKET_LB: &str = "bpf-lb-sock";
const CGROUP_ROOT: &str = "cgroup-root";
const PROXY_NAME: &str = "k8s-service-proxy-name";

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[&str] = &[KUBE_PROXY_REPLACEMENT, SOCKET_LB, CGROUP_ROOT, PROXY_NAME];

    /// Reads the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let default = Self::default();
        let config = Self {
            socket_lb: read.flag(KUBE_PROXY_REPLACEMENT, false) | read.flag(SOCKET_LB, false),
            cgroup_root: read.path(CGROUP_ROOT).unwrap_or(default.cgroup_root),
            proxy_name: read.text(PROXY_NAME).unwrap_or_default().to_owned(),
            node: default.node,
        };
        read.finish(config)
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
    fn kube_proxy_replacement_turns_socket_translation_on() {
        assert!(!parse(&[]).unwrap().socket_lb);
        assert!(!parse(&[("kube-proxy-replacement", "false")]).unwrap().socket_lb);
        assert!(parse(&[("kube-proxy-replacement", "true")]).unwrap().socket_lb);
        assert!(parse(&[("kube-proxy-replacement", "false"), ("bpf-lb-sock", "true")]).unwrap().socket_lb);
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let errors = parse(&[("kube-proxy-replacement", "strict"), ("cgroup-root", "cgroup")]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "configuration key kube-proxy-replacement: \"strict\" is not \"true\" or \"false\""
        );
        assert_eq!(errors[1].key, "cgroup-root");
    }
}
