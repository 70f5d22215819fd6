// SPDX-License-Identifier: Apache-2.0
//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: the tree below `spec`. One type serves allow and deny rules;
//! [`validate`](super::validate()) refuses in a deny rule what only an allow rule may have.

use super::resource::resource;
use crate::crd::policy::{self as published, alternatives};
use crate::crd::{AGE, VALID};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

resource! {
    /// A policy for the pods of one namespace.
    CiliumNetworkPolicy, NamespaceResourceScope, "ciliumnetworkpolicies", {
        short_names: &["cnp", "ciliumnp"],
        categories: &["ciliumpolicy"],
        status_subresource: true,
        columns: &[AGE, VALID],
    }
    {
        /// One rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Rule>,
        /// Several rules; with `spec` they count together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        specs: Option<Vec<Rule>>,
        /// Whether it is valid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<PolicyStatus>,
    }
}

resource! {
    /// A policy for pods of all namespaces, or for nodes.
    CiliumClusterwideNetworkPolicy, ClusterResourceScope, "ciliumclusterwidenetworkpolicies", {
        short_names: &["ccnp"],
        categories: &["ciliumpolicy"],
        status_subresource: true,
        columns: &[VALID],
    }
    {
        /// One rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<Rule>,
        /// Several rules; with `spec` they count together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        specs: Option<Vec<Rule>>,
        /// Whether it is valid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<PolicyStatus>,
    }
}

/// What is allowed or denied for the endpoints or nodes that a selector chooses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    extend("oneOf" = alternatives(&["endpointSelector", "nodeSelector"])),
    extend("anyOf" = alternatives(&["ingress", "ingressDeny", "egress", "egressDeny"])),
)]
pub struct Rule {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The pods it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<published::Selector>")]
    pub endpoint_selector: Option<LabelSelector>,
    /// The nodes it applies to; only in a clusterwide policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<published::Selector>")]
    pub node_selector: Option<LabelSelector>,
    /// What may come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<IngressRule>>,
    /// What may not come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "published::deny::<IngressRule>")]
    pub ingress_deny: Option<Vec<IngressRule>>,
    /// What may go out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
    /// What may not go out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "published::deny::<EgressRule>")]
    pub egress_deny: Option<Vec<EgressRule>>,
    /// Whether the rule makes the rest denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_default_deny: Option<DefaultDenyConfig>,
    /// Labels of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<RuleLabel>>,
    /// Text for the flows that it decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
}

impl Rule {
    /// Whether it says anything about what comes in. An empty list says as much as none.
    #[must_use]
    pub fn has_ingress(&self) -> bool {
        let sections = [&self.ingress, &self.ingress_deny];
        sections.into_iter().flatten().any(|section| !section.is_empty())
    }

    /// Whether it says anything about what goes out. An empty list says as much as none.
    #[must_use]
    pub fn has_egress(&self) -> bool {
        let sections = [&self.egress, &self.egress_deny];
        sections.into_iter().flatten().any(|section| !section.is_empty())
    }
}

/// Whether traffic that no rule allows is denied because of this rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultDenyConfig {
    /// Into the selected endpoints; true if absent and [`Rule::has_ingress`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// Out of the selected endpoints; true if absent and [`Rule::has_egress`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleLabel {
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What to put into flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogConfig {
    /// Text of at most 32 printable characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32, "pattern" = published::PRINTABLE))]
    pub value: Option<String>,
}

/// What may, or may not, come in. All that is given must match. An empty rule selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Selector>>")]
    pub from_endpoints: Option<Vec<LabelSelector>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Selector>>")]
    pub from_nodes: Option<Vec<LabelSelector>>,
    /// Prefixes outside of the cluster.
    #[serde(default, rename = "fromCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Cidr>>")]
    pub from_cidr: Option<Vec<String>>,
    /// Prefixes with exceptions, and groups of prefixes.
    #[serde(default, rename = "fromCIDRSet", skip_serializing_if = "Option::is_none")]
    pub from_cidr_set: Option<Vec<CIDRRule>>,
    /// Named sets such as `world` and `cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Entity>>")]
    pub from_entities: Option<Vec<String>>,
    /// Groups of a cloud provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_groups: Option<Vec<Groups>>,
    /// Must be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>", extend("maxItems" = 0))]
    pub from_requires: Option<Vec<LabelSelector>>,
    /// Ports of the selected endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// ICMP types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<ICMPRule>>,
    /// Mutual authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// What may, or may not, go out. All that is given must match. An empty rule selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Selector>>")]
    pub to_endpoints: Option<Vec<LabelSelector>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Selector>>")]
    pub to_nodes: Option<Vec<LabelSelector>>,
    /// Prefixes outside of the cluster.
    #[serde(default, rename = "toCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Cidr>>")]
    pub to_cidr: Option<Vec<String>>,
    /// Prefixes with exceptions, and groups of prefixes.
    #[serde(default, rename = "toCIDRSet", skip_serializing_if = "Option::is_none")]
    pub to_cidr_set: Option<Vec<CIDRRule>>,
    /// Named sets such as `world` and `cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Entity>>")]
    pub to_entities: Option<Vec<String>>,
    /// DNS names.
    #[serde(default, rename = "toFQDNs", skip_serializing_if = "Option::is_none")]
    pub to_fqdns: Option<Vec<FQDNSelector>>,
    /// Kubernetes Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_services: Option<Vec<Service>>,
    /// Groups of a cloud provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_groups: Option<Vec<Groups>>,
    /// Must be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>", extend("maxItems" = 0))]
    pub to_requires: Option<Vec<LabelSelector>>,
    /// Ports of the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// ICMP types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<ICMPRule>>,
    /// Mutual authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// A prefix or a group of prefixes, less exceptions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = alternatives(&["cidr", "cidrGroupRef", "cidrGroupSelector"])))]
pub struct CIDRRule {
    /// The prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// Name of a [`CiliumCIDRGroup`](super::CiliumCIDRGroup).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 253, "pattern" = published::OBJECT_NAME))]
    pub cidr_group_ref: Option<String>,
    /// Selects [`CiliumCIDRGroup`](super::CiliumCIDRGroup)s by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<published::Selector>")]
    pub cidr_group_selector: Option<LabelSelector>,
    /// Prefixes within that are not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::Cidr>>")]
    pub except: Option<Vec<String>>,
}

/// DNS names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = alternatives(&["matchName", "matchPattern"])))]
pub struct FQDNSelector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255, "pattern" = published::DNS_NAME))]
    pub match_name: Option<String>,
    /// Names of this pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255, "pattern" = published::DNS_PATTERN))]
    pub match_pattern: Option<String>,
}

/// Kubernetes Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// One by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_service: Option<K8sServiceNamespace>,
    /// Those that a selector chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_service_selector: Option<K8sServiceSelectorNamespace>,
}

/// A Service by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct K8sServiceNamespace {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Services by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct K8sServiceSelectorNamespace {
    /// Their labels.
    #[schemars(with = "published::Selector")]
    pub selector: LabelSelector,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Groups that a provider outside of Kubernetes knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AWSGroup>,
}

/// Groups of AWS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSGroup {
    /// Labels of instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups_ids: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups_names: Option<Vec<String>>,
}

/// Mutual authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// `disabled`, `required` or `test-always-fail`.
    #[schemars(extend("enum" = ["disabled", "required", "test-always-fail"]))]
    pub mode: String,
}

/// ICMP types.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ICMPRule {
    /// Each a type of a family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 40))]
    pub fields: Option<Vec<ICMPField>>,
}

/// One ICMP type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ICMPField {
    /// `IPv4` (if absent) or `IPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["IPv4", "IPv6"], "default" = "IPv4"))]
    pub family: Option<String>,
    /// Number or name.
    #[serde(rename = "type")]
    #[serde(default)]
    #[schemars(schema_with = "published::icmp_type")]
    pub icmp_type: ICMPType,
}

/// An ICMP type by number, or by name such as `EchoRequest`.
pub type ICMPType = IntOrString;

/// Ports, and what may be said on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRule {
    /// The ports; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 40))]
    pub ports: Option<Vec<PortProtocol>>,
    /// What the application protocol may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<L7Rules>,
    /// The listener of an Envoy configuration to send the traffic to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// Server names of TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<published::ServerName>>", extend("minItems" = 1, "x-kubernetes-list-type" = "set"))]
    pub server_names: Option<Vec<String>>,
    /// TLS towards the client.
    #[serde(default, rename = "terminatingTLS", skip_serializing_if = "Option::is_none")]
    pub terminating_tls: Option<TLSContext>,
    /// TLS towards the server.
    #[serde(default, rename = "originatingTLS", skip_serializing_if = "Option::is_none")]
    pub originating_tls: Option<TLSContext>,
}

/// A port or a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortProtocol {
    /// Number or name; `0` means any. May be absent only where the protocol has no ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = published::PORT))]
    pub port: Option<String>,
    /// Last port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 65535))]
    pub end_port: Option<i32>,
    /// `TCP`, `UDP`, `SCTP`, `VRRP`, `IGMP` or `ANY` (if absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP", "VRRP", "IGMP", "ANY"]))]
    pub protocol: Option<String>,
}

/// What the application protocol may do: one of HTTP, Kafka, DNS, or another by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = alternatives(&["http", "kafka", "dns", "l7proto"])))]
pub struct L7Rules {
    /// Requests that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<PortRuleHTTP>>,
    /// Requests that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<PortRuleKafka>>,
    /// Names that may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<FQDNSelector>>,
    /// Name of another protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l7proto: Option<String>,
    /// Rules of that protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l7: Option<Vec<BTreeMap<String, String>>>,
}

/// HTTP requests: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRuleHTTP {
    /// Regular expression for the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Regular expression for the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Regular expression for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "idn-hostname"))]
    pub host: Option<String>,
    /// Headers that must be there: `Name` or `Name value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Headers that must match, and what to do if they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_matches: Option<Vec<HeaderMatch>>,
}

/// A header, and what to do when it does not match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// `LOG`, `ADD`, `DELETE` or `REPLACE`; denied if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["LOG", "ADD", "DELETE", "REPLACE"]))]
    pub mismatch: Option<String>,
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// Kafka requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRuleKafka {
    /// `produce` or `consume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["produce", "consume"]))]
    pub role: Option<String>,
    /// Kind of request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Version of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255))]
    pub topic: Option<String>,
}

/// A listener of an Envoy configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The configuration.
    pub envoy_config: EnvoyConfig,
    /// Name of the listener.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// Which wins when several apply; lower is stronger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null, "minimum" = 1, "maximum" = 100))]
    pub priority: Option<i32>,
}

/// An Envoy configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfig {
    /// `CiliumEnvoyConfig` or `CiliumClusterwideEnvoyConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"]))]
    pub kind: Option<String>,
    #[schemars(extend("minLength" = 1))]
    pub name: String,
}

/// Keys and certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TLSContext {
    /// Where they are.
    pub secret: Secret,
    /// Item of the secret with the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Item of the secret with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Item of the secret with the certificates that are trusted.
    #[serde(default, rename = "trustedCA", skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<String>,
}

/// A Kubernetes Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the operator thinks of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Of them `Valid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<PolicyCondition>>,
    /// Policies made from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "published::derivative_policies")]
    pub derivative_policies: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCondition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Which one.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// When the status changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<published::DateTime>")]
    pub last_transition_time: Option<Time>,
    /// Why, for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
