// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

pub use model::ConfigError;
use model::config::{Key, Reader};
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

const KUBE_PROXY_REPLACEMENT: Key = Key::new(
    "kube-proxy-replacement",
    "translate Services when a socket connects; otherwise packets of pods are translated on their way out, and those of the host are left to kube-proxy",
    "false",
);
const SOCKET_LB: Key = Key::new(
    "bpf-lb-sock",
    "translate Services at sockets, as kube-proxy-replacement does, without saying that there is no kube-proxy",
    "false",
);
const CGROUP_ROOT: Key =
    Key::new("cgroup-root", "root of the cgroup v2 tree whose sockets are translated", "/run/cilium/cgroupv2");
const PROXY_NAME: Key = Key::new(
    "k8s-service-proxy-name",
    "handle only Services with this value of the label service.kubernetes.io/service-proxy-name; if empty, only those without the label",
    "",
);

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] = &[KUBE_PROXY_REPLACEMENT, SOCKET_LB, CGROUP_ROOT, PROXY_NAME];

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
        Self {
            socket_lb: read.flag(&KUBE_PROXY_REPLACEMENT) | read.flag(&SOCKET_LB),
            cgroup_root: read.path(&CGROUP_ROOT).unwrap_or_default(),
            proxy_name: read.text(&PROXY_NAME).unwrap_or_default().to_owned(),
            node: String::new(),
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
    fn kube_proxy_replacement_turns_socket_translation_on() {
        assert!(!parse(&[]).unwrap().socket_lb);
        assert!(!parse(&[("kube-proxy-replacement", "false")]).unwrap().socket_lb);
        assert!(parse(&[("kube-proxy-replacement", "true")]).unwrap().socket_lb);
        assert!(parse(&[("kube-proxy-replacement", "false"), ("bpf-lb-sock", "true")]).unwrap().socket_lb);
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
        assert_eq!(parse(&[]).unwrap(), Config::default());
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
