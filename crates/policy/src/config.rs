// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use crate::addresses::Settings;
use crate::labels::LabelFilter;
use crate::resolve::{Enforcement, Families};
use crate::rules::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::config::{Accepts, Choice, Form, Reader, Value, keys, shared};
use model::{Cluster, ClusterId, MeshSize};
use std::sync::Arc;

keys! {
    /// How policy works on this node.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// When policy is enforced: default (for pods that a policy selects), always or never.
        #[key("enable-policy", default = "default", value = "policyEnforcementMode")]
        pub enforcement: Enforcement,
        #[key(shared::CLUSTER_NAME)]
        pub cluster_name: String,
        /// Number of the cluster, 0 to 255 (or 511, see max-connected-clusters), which is part of the numbers of its identities.
        #[key(
            "cluster-id",
            default = "0",
            value = "cluster.id",
            schema = r#"{"type": "integer", "minimum": 0, "maximum": 511}"#,
        )]
        pub cluster_id: ClusterId,
        /// How many clusters a mesh may have, 255 or 511: with 511 each has half as many identities. The same in all of its
        /// clusters, and never changed while pods run.
        #[key(
            "max-connected-clusters",
            default = "255",
            value = "clustermesh.maxConnectedClusters",
            initial = "255",
            schema = r#"{"type": "integer", "enum": [255, 511]}"#,
        )]
        pub mesh: MeshSize,
        /// Label patterns that make identities, besides the built-in ones, such as `k8s:team !k8s:build`; with one to
        /// include, labels that no pattern names count no more.
        #[key("labels", optional = "labels")]
        pub labels: LabelFilter,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        #[key(shared::NATIVE_IPV4)]
        pub native_ipv4: Option<Ipv4Net>,
        #[key(shared::NATIVE_IPV6)]
        pub native_ipv6: Option<Ipv6Net>,
        /// Honour Kubernetes' NetworkPolicies.
        #[key("enable-k8s-networkpolicy", default = "true")]
        pub network_policies: bool,
        /// Protocol ANY of a rule includes SCTP.
        #[key("enable-sctp", default = "false")]
        pub sctp: bool,
        /// Selectors of pods that name no cluster mean this one.
        #[key("policy-default-local-cluster", default = "true")]
        pub default_local_cluster: bool,
        /// Where identities are kept: only crd (CiliumIdentity objects) is supported.
        #[key("identity-allocation-mode", default = "crd", always = "crd")]
        pub identity_store: CrdOnly,
    }
    check Self::refuse_misfits;
}

/// The only place where identities are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrdOnly;

impl Choice for CrdOnly {
    const WANT: &'static str = "supported: use crd";
    const NAMES: &'static [(&'static str, Self)] = &[("crd", Self)];
}

impl Choice for Enforcement {
    const WANT: &'static str = "\"default\", \"always\" or \"never\"";
    const NAMES: &'static [(&'static str, Self)] =
        &[("default", Self::Default), ("always", Self::Always), ("never", Self::Never)];
}

impl Value for LabelFilter {
    fn form() -> Form {
        Form::new("a list of label patterns", Accepts::Text)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::with_patterns(text).ok()
    }
}

impl Config {
    /// Rejects values that are valid on their own but not in combination.
    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        if self.mesh.cluster(self.cluster_id).is_none() {
            const WANT: &str = "a number from 0 to 255, which max-connected-clusters allows";
            read.refuse("cluster-id", &self.cluster_id.to_string(), WANT);
        }
    }

    /// The cluster in its mesh.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        self.mesh.cluster(self.cluster_id).unwrap_or_default()
    }

    /// The address families that pods have.
    #[must_use]
    pub const fn families(&self) -> Families {
        Families { ipv4: self.ipv4, ipv6: self.ipv6 }
    }

    /// What ingesting policies needs to know.
    #[must_use]
    pub fn context(&self) -> Context {
        let (cluster, default_local_cluster) = (Arc::from(self.cluster_name.as_str()), self.default_local_cluster);
        Context { cluster, default_local_cluster, sctp: self.sctp }
    }

    pub(crate) fn addresses(&self) -> Settings {
        let native = [self.native_ipv4.map(IpNet::V4), self.native_ipv6.map(IpNet::V6)];
        let native_cidrs = native.into_iter().flatten().map(|net| net.trunc()).collect();
        Settings { families: self.families(), cluster: self.cluster_name.as_str().into(), native_cidrs }
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
    fn a_mesh_of_511_has_more_clusters_with_fewer_identities_each() {
        let large = parse(&[("cluster-id", "256"), ("max-connected-clusters", "511")]).unwrap();
        assert_eq!(large.cluster().identities(), 0x80_0100..=0x80_7fff);
        assert_eq!(parse(&[("cluster-id", "2")]).unwrap().cluster().identities(), 0x2_0100..=0x2_ffff);
        let refused = [("cluster-id", "256"), ("max-connected-clusters", "512")];
        for keys in [&refused[..1], &refused[1..]] {
            assert_eq!(parse(keys).unwrap_err().len(), 1, "{keys:?}");
        }
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
        assert_eq!((config.enforcement, config.cluster().id()), (Enforcement::Always, ClusterId::new(3).unwrap()));
        assert_eq!(config.addresses().native_cidrs, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert!(config.families().ipv4 && config.families().ipv6);
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
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
