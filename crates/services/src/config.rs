// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::keys;
use std::path::PathBuf;

keys! {
    /// How Services are handled on this node.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Translate Services when a socket connects; otherwise packets of pods are translated on their way out, and those
        /// of the host are left to kube-proxy.
        #[key(
            "kube-proxy-replacement",
            default = "false",
            value = "kubeProxyReplacement",
            initial = "\"false\"",
            schema = r#"{"enum": ["true", "false", true, false]}"#,
        )]
        pub kube_proxy_replacement: bool,
        /// Translate Services at sockets, as kube-proxy-replacement does, without saying that there is no kube-proxy.
        #[key("bpf-lb-sock", default = "false")]
        pub socket_lb_only: bool,
        /// Root of the cgroup v2 tree whose sockets are translated.
        #[key("cgroup-root", default = "/run/cilium/cgroupv2", value = "cgroup.hostRoot")]
        pub cgroup_root: PathBuf,
        /// Handle only Services with this value of the label service.kubernetes.io/service-proxy-name; if empty, only those
        /// without the label.
        #[key("k8s-service-proxy-name")]
        pub proxy_name: String,
    }
}

impl Config {
    /// Whether Services are translated when a socket connects.
    #[must_use]
    pub const fn socket_lb(&self) -> bool {
        self.kube_proxy_replacement || self.socket_lb_only
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use model::config::{ConfigError, Group};

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn kube_proxy_replacement_turns_socket_translation_on() {
        assert!(!parse(&[]).unwrap().socket_lb());
        assert!(!parse(&[("kube-proxy-replacement", "false")]).unwrap().socket_lb());
        assert!(parse(&[("kube-proxy-replacement", "true")]).unwrap().socket_lb());
        assert!(parse(&[("kube-proxy-replacement", "false"), ("bpf-lb-sock", "true")]).unwrap().socket_lb());
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
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
