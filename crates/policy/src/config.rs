// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use crate::ipcache::Settings;
use crate::labels::LabelFilter;
use crate::resolve::{Enforcement, Families};
use crate::rules::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use model::ConfigError;
use model::config::{Key, Reader, shared};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How policy works on this node.
#[derive(Clone, Debug)]
pub struct Config {
    /// When policy is enforced (`enable-policy`).
    pub enforcement: Enforcement,
    /// Name of the cluster (`cluster-name`).
    pub cluster_name: Arc<str>,
    /// Number of the cluster (`cluster-id`): which numbers its identities have.
    pub cluster_id: u8,
    /// Which labels make identities (`labels`).
    pub labels: LabelFilter,
    /// Address families (`enable-ipv4`, `enable-ipv6`).
    pub families: Families,
    /// Traffic there keeps its source address (`ipv4-native-routing-cidr`, `ipv6-native-routing-cidr`).
    pub native_cidrs: Vec<IpNet>,
    /// Kubernetes' NetworkPolicies count (`enable-k8s-networkpolicy`).
    pub network_policies: bool,
    /// Protocol ANY includes SCTP (`enable-sctp`).
    pub sctp: bool,
    /// Selectors of pods that name no cluster mean this one (`policy-default-local-cluster`).
    pub default_local_cluster: bool,
}

const ENABLE_POLICY: Key = Key::new(
    "enable-policy",
    "when policy is enforced: default (for pods that a policy selects), always or never",
    "default",
);
const CLUSTER_ID: Key =
    Key::new("cluster-id", "number of the cluster, 0 to 255, which is part of the numbers of its identities", "0");
const LABELS: Key = Key::new(
    "labels",
    "label patterns that make identities, besides the built-in ones; with one to include, labels that no pattern names count no more",
    "",
);
const NETWORK_POLICY: Key = Key::new("enable-k8s-networkpolicy", "honour Kubernetes' NetworkPolicies", "true");
const SCTP: Key = Key::new("enable-sctp", "protocol ANY of a rule includes SCTP", "false");
const LOCAL_CLUSTER: Key =
    Key::new("policy-default-local-cluster", "selectors of pods that name no cluster mean this one", "true");
const ALLOCATION_MODE: Key = Key::new(
    "identity-allocation-mode",
    "where identities are kept: only crd (CiliumIdentity objects) is supported",
    "crd",
);

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] = &[
        ENABLE_POLICY,
        shared::CLUSTER_NAME,
        CLUSTER_ID,
        LABELS,
        shared::ENABLE_IPV4,
        shared::ENABLE_IPV6,
        shared::NATIVE_IPV4,
        shared::NATIVE_IPV6,
        NETWORK_POLICY,
        SCTP,
        LOCAL_CLUSTER,
        ALLOCATION_MODE,
    ];

    /// Types the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let config = Self::read(&mut read);
        read.choice(&ALLOCATION_MODE, "supported: use crd", &[("crd", ())]);
        read.finish(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        let enforcement = read.choice(
            &ENABLE_POLICY,
            "\"default\", \"always\" or \"never\"",
            &[("default", Enforcement::Default), ("always", Enforcement::Always), ("never", Enforcement::Never)],
        );
        let labels = read.read(&LABELS, "a list of label patterns", |text| LabelFilter::with_patterns(text).ok());
        let native = [
            read.parsed::<Ipv4Net>(&shared::NATIVE_IPV4, "an IPv4 prefix").map(IpNet::V4),
            read.parsed::<Ipv6Net>(&shared::NATIVE_IPV6, "an IPv6 prefix").map(IpNet::V6),
        ];
        Self {
            enforcement: enforcement.unwrap_or_default(),
            cluster_name: read.text(&shared::CLUSTER_NAME).unwrap_or_default().into(),
            cluster_id: read.parsed(&CLUSTER_ID, "a number from 0 to 255").unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            families: Families { ipv4: read.flag(&shared::ENABLE_IPV4), ipv6: read.flag(&shared::ENABLE_IPV6) },
            native_cidrs: native.into_iter().flatten().map(|net| net.trunc()).collect(),
            network_policies: read.flag(&NETWORK_POLICY),
            sctp: read.flag(&SCTP),
            default_local_cluster: read.flag(&LOCAL_CLUSTER),
        }
    }

    /// What ingesting policies needs of it.
    #[must_use]
    pub fn context(&self) -> Context {
        let (cluster, default_local_cluster) = (self.cluster_name.clone(), self.default_local_cluster);
        Context { cluster, default_local_cluster, sctp: self.sctp }
    }

    pub(crate) fn ipcache(&self) -> Settings {
        Settings { families: self.families, native_cidrs: self.native_cidrs.clone() }
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
    fn without_keys_policy_is_enforced_where_one_selects() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.enforcement, Enforcement::Default);
        assert_eq!((&*config.cluster_name, config.network_policies, config.sctp), ("default", true, false));
    }

    #[test]
    fn keys_are_read_with_their_types() {
        let keys = [
            ("enable-policy", "always"),
            ("ipv4-native-routing-cidr", "10.0.0.1/8"),
            ("cluster-id", "3"),
            ("labels", "k8s:app !team"),
            ("enable-ipv6", "true"),
        ];
        let config = parse(&keys).unwrap();
        assert_eq!((config.enforcement, config.cluster_id), (Enforcement::Always, 3));
        assert_eq!(config.native_cidrs, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert!(config.families.ipv4 && config.families.ipv6);
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        let text = |config: Config| format!("{config:?}");
        assert_eq!(text(Config::parse(&documented).unwrap()), text(parse(&[]).unwrap()));
    }

    #[test]
    fn identities_that_are_kept_elsewhere_are_refused() {
        assert!(parse(&[("identity-allocation-mode", "crd")]).is_ok());
        let errors = parse(&[("identity-allocation-mode", "kvstore")]).unwrap_err();
        let text = "configuration key identity-allocation-mode: \"kvstore\" is not supported: use crd";
        assert_eq!(errors[0].to_string(), text);
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let keys = [("enable-policy", "sometimes"), ("ipv4-native-routing-cidr", "fd00::/8"), ("labels", "a(")];
        let errors = parse(&keys).unwrap_err();
        assert_eq!(
            errors.iter().map(|e| e.key).collect::<Vec<_>>(),
            ["enable-policy", "labels", "ipv4-native-routing-cidr"]
        );
        let text = "configuration key enable-policy: \"sometimes\" is not \"default\", \"always\" or \"never\"";
        assert_eq!(errors[0].to_string(), text);
    }
}
