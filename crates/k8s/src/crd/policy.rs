// SPDX-License-Identifier: Apache-2.0
//! Schema of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

use super::schema::{Schema, boolean, date_time, int64, integer, list, map, object, one_of, string};
use schemars::SchemaGenerator;
use serde_json::json;

const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const DNS_NAME: &str = r"^([-a-zA-Z0-9_]+[.]?)+$";
const DNS_PATTERN: &str = r"^([-a-zA-Z0-9_*]+[.]?)+$";
const SERVER_NAME: &str = r"^(\*?\*\.)?([-a-zA-Z0-9_]+\.?)+$";
const PORT: &str = "^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})|\
    ([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$";
const PRINTABLE: &str = r"^\PC*$";
const ICMP_TYPE_NUMBER: &str = "[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]";
const ICMP_TYPE_NAMES: &[&str] = &[
    "EchoReply",
    "DestinationUnreachable",
    "Redirect",
    "Echo",
    "RouterAdvertisement",
    "RouterSelection",
    "TimeExceeded",
    "ParameterProblem",
    "Timestamp",
    "TimestampReply",
    "Photuris",
    "ExtendedEchoRequest",
    "ExtendedEcho Reply",
    "ExtendedEchoReply",
    "PacketTooBig",
    "EchoRequest",
    "MulticastListenerQuery",
    "MulticastListenerReport",
    "MulticastListenerDone",
    "RouterSolicitation",
    "NeighborSolicitation",
    "NeighborAdvertisement",
    "RedirectMessage",
    "RouterRenumbering",
    "ICMPNodeInformationQuery",
    "ICMPNodeInformationResponse",
    "InverseNeighborDiscoverySolicitation",
    "InverseNeighborDiscoveryAdvertisement",
    "HomeAgentAddressDiscoveryRequest",
    "HomeAgentAddressDiscoveryReply",
    "MobilePrefixSolicitation",
    "MobilePrefixAdvertisement",
    "DuplicateAddressRequestCodeSuffix",
    "DuplicateAddressConfirmationCodeSuffix",
];

/// What a policy has at its top.
pub(crate) fn spec(_: &mut SchemaGenerator) -> schemars::Schema {
    rule().into()
}

pub(crate) fn specs(_: &mut SchemaGenerator) -> schemars::Schema {
    list(rule()).into()
}

pub(crate) fn conditions(_: &mut SchemaGenerator) -> schemars::Schema {
    status().into()
}

pub(crate) fn label_selector(_: &mut SchemaGenerator) -> schemars::Schema {
    selector().into()
}

fn rule() -> Schema {
    object([
        ("description", string()),
        ("endpointSelector", selector()),
        ("nodeSelector", selector()),
        ("ingress", list(ingress())),
        ("ingressDeny", list(ingress_deny())),
        ("egress", list(egress())),
        ("egressDeny", list(egress_deny())),
        ("enableDefaultDeny", object([("ingress", boolean()), ("egress", boolean())])),
        ("labels", list(object([("key", string()), ("source", string()), ("value", string())]).required(["key"]))),
        ("log", object([("value", string().max_length(32).pattern(PRINTABLE))])),
    ])
    .exactly_one(["endpointSelector", "nodeSelector"])
    .at_least_one(["ingress", "ingressDeny", "egress", "egressDeny"])
}

fn ingress() -> Schema {
    object([
        ("authentication", authentication()),
        ("fromCIDR", list(cidr())),
        ("fromCIDRSet", list(cidr_rule())),
        ("fromEndpoints", list(selector())),
        ("fromEntities", list(entity())),
        ("fromGroups", list(groups())),
        ("fromNodes", list(selector())),
        ("fromRequires", list(string()).max_items(0)),
        ("icmps", list(icmp())),
        ("toPorts", list(port_rule())),
    ])
}

fn ingress_deny() -> Schema {
    object([
        ("fromCIDR", list(cidr())),
        ("fromCIDRSet", list(cidr_rule())),
        ("fromEndpoints", list(selector())),
        ("fromEntities", list(entity())),
        ("fromGroups", list(groups())),
        ("fromNodes", list(selector())),
        ("fromRequires", list(string()).max_items(0)),
        ("icmps", list(icmp())),
        ("toPorts", list(port_deny_rule())),
    ])
}

fn egress() -> Schema {
    object([
        ("authentication", authentication()),
        ("icmps", list(icmp())),
        ("toCIDR", list(cidr())),
        ("toCIDRSet", list(cidr_rule())),
        ("toEndpoints", list(selector())),
        ("toEntities", list(entity())),
        ("toFQDNs", list(fqdn())),
        ("toGroups", list(groups())),
        ("toNodes", list(selector())),
        ("toPorts", list(port_rule())),
        ("toRequires", list(string()).max_items(0)),
        ("toServices", list(service())),
    ])
}

fn egress_deny() -> Schema {
    object([
        ("icmps", list(icmp())),
        ("toCIDR", list(cidr())),
        ("toCIDRSet", list(cidr_rule())),
        ("toEndpoints", list(selector())),
        ("toEntities", list(entity())),
        ("toGroups", list(groups())),
        ("toNodes", list(selector())),
        ("toPorts", list(port_deny_rule())),
        ("toRequires", list(string()).max_items(0)),
        ("toServices", list(service())),
    ])
}

fn selector() -> Schema {
    let requirement = object([
        ("key", string()),
        ("operator", one_of(["In", "NotIn", "Exists", "DoesNotExist"])),
        ("values", list(string()).with("x-kubernetes-list-type", "atomic")),
    ])
    .required(["key", "operator"]);
    object([
        ("matchExpressions", list(requirement).with("x-kubernetes-list-type", "atomic")),
        ("matchLabels", map(string().max_length(63).pattern(LABEL_VALUE))),
    ])
    .with("x-kubernetes-map-type", "atomic")
}

fn cidr() -> Schema {
    string().format("cidr")
}

fn cidr_rule() -> Schema {
    object([
        ("cidr", cidr()),
        ("cidrGroupRef", string().max_length(253).pattern(OBJECT_NAME)),
        ("cidrGroupSelector", selector()),
        ("except", list(cidr())),
    ])
    .exactly_one(["cidr", "cidrGroupRef", "cidrGroupSelector"])
}

fn entity() -> Schema {
    one_of([
        "all",
        "world",
        "cluster",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ])
}

fn groups() -> Schema {
    let aws = object([
        ("labels", map(string())),
        ("region", string()),
        ("securityGroupsIds", list(string())),
        ("securityGroupsNames", list(string())),
    ]);
    object([("aws", aws)])
}

fn fqdn() -> Schema {
    object([
        ("matchName", string().max_length(255).pattern(DNS_NAME)),
        ("matchPattern", string().max_length(255).pattern(DNS_PATTERN)),
    ])
    .exactly_one(["matchName", "matchPattern"])
}

fn service() -> Schema {
    let by_selector = object([("namespace", string()), ("selector", selector())]).required(["selector"]);
    object([
        ("k8sService", object([("namespace", string()), ("serviceName", string())])),
        ("k8sServiceSelector", by_selector),
    ])
}

fn authentication() -> Schema {
    object([("mode", one_of(["disabled", "required", "test-always-fail"]))]).required(["mode"])
}

fn icmp() -> Schema {
    let number_or_name = format!("^({ICMP_TYPE_NUMBER}|{})$", ICMP_TYPE_NAMES.join("|"));
    let field_type = string()
        .pattern(&number_or_name)
        .with("x-kubernetes-int-or-string", true)
        .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
        .without_type();
    let field = object([("family", one_of(["IPv4", "IPv6"]).with("default", "IPv4")), ("type", field_type)]);
    object([("fields", list(field.required(["type"])).max_items(40))])
}

fn ports() -> Schema {
    let port = object([
        ("endPort", integer().format("int32").range(0, 65535)),
        ("port", string().pattern(PORT)),
        ("protocol", one_of(["TCP", "UDP", "SCTP", "VRRP", "IGMP", "ANY"])),
    ]);
    list(port).max_items(40)
}

fn port_deny_rule() -> Schema {
    object([("ports", ports())])
}

fn port_rule() -> Schema {
    let envoy_config = object([
        ("kind", one_of(["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"])),
        ("name", string().not_empty()),
    ])
    .required(["name"]);
    let listener =
        object([("envoyConfig", envoy_config), ("name", string().not_empty()), ("priority", integer().range(1, 100))])
            .required(["envoyConfig", "name"]);
    let server_names =
        list(string().max_length(255).pattern(SERVER_NAME)).with("minItems", 1).with("x-kubernetes-list-type", "set");
    object([
        ("listener", listener),
        ("originatingTLS", tls()),
        ("ports", ports()),
        ("rules", l7_rules()),
        ("serverNames", server_names),
        ("terminatingTLS", tls()),
    ])
}

fn tls() -> Schema {
    object([("certificate", string()), ("privateKey", string()), ("secret", secret()), ("trustedCA", string())])
        .required(["secret"])
}

fn secret() -> Schema {
    object([("name", string()), ("namespace", string())]).required(["name"])
}

fn l7_rules() -> Schema {
    let header = object([
        ("mismatch", one_of(["LOG", "ADD", "DELETE", "REPLACE"])),
        ("name", string().not_empty()),
        ("secret", secret()),
        ("value", string()),
    ])
    .required(["name"]);
    let http = object([
        ("headerMatches", list(header)),
        ("headers", list(string())),
        ("host", string().format("idn-hostname")),
        ("method", string()),
        ("path", string()),
    ]);
    let kafka = object([
        ("apiKey", string()),
        ("apiVersion", string()),
        ("clientID", string()),
        ("role", one_of(["produce", "consume"])),
        ("topic", string().max_length(255)),
    ]);
    object([
        ("dns", list(fqdn())),
        ("http", list(http)),
        ("kafka", list(kafka)),
        ("l7", list(map(string()))),
        ("l7proto", string()),
    ])
    .exactly_one(["http", "kafka", "dns", "l7proto"])
}

fn status() -> Schema {
    let condition = object([
        ("lastTransitionTime", date_time()),
        ("message", string()),
        ("reason", string()),
        ("status", string()),
        ("type", string()),
    ])
    .required(["status", "type"]);
    let derivative = object([
        ("annotations", map(string())),
        ("enforcing", boolean()),
        ("error", string()),
        ("lastUpdated", date_time()),
        ("localPolicyRevision", int64()),
        ("ok", boolean()),
    ]);
    let conditions =
        list(condition).with("x-kubernetes-list-type", "map").with("x-kubernetes-list-map-keys", json!(["type"]));
    object([("conditions", conditions), ("derivativePolicies", map(derivative))])
}
