// SPDX-License-Identifier: Apache-2.0
//! What the schemas of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy say that their types do not: texts of a form, and
//! what of an allow rule a deny rule may not have.

use super::schema::{Schema, boolean, date_time, int64, list, map, object, required, string};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;
use std::borrow::Cow;

const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
pub(crate) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
pub(crate) const DNS_NAME: &str = r"^([-a-zA-Z0-9_]+[.]?)+$";
pub(crate) const DNS_PATTERN: &str = r"^([-a-zA-Z0-9_*]+[.]?)+$";
const SERVER_NAME: &str = r"^(\*?\*\.)?([-a-zA-Z0-9_]+\.?)+$";
pub(crate) const PORT: &str = "^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})|\
    ([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$";
pub(crate) const PRINTABLE: &str = r"^\PC*$";
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

/// Types that are there for their schemas.
macro_rules! published {
    ($($(#[$meta:meta])* $name:ident = $schema:expr;)+) => {$(
        $(#[$meta])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
                $schema.into()
            }
        }
    )+};
}

published! {
    /// A prefix.
    Cidr = string().format("cidr");
    DateTime = date_time();
    /// A set of peers that has a name.
    Entity = super::schema::one_of(ENTITIES);
    /// A label selector.
    Selector = selector();
    /// A server name of TLS.
    ServerName = string().max_length(255).pattern(SERVER_NAME);
}

const ENTITIES: [&str; 11] = [
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
];

fn selector() -> Schema {
    let requirement = object([
        ("key", string()),
        ("operator", super::schema::one_of(["In", "NotIn", "Exists", "DoesNotExist"])),
        ("values", list(string()).with("x-kubernetes-list-type", "atomic")),
    ])
    .required(["key", "operator"]);
    object([
        ("matchExpressions", list(requirement).with("x-kubernetes-list-type", "atomic")),
        ("matchLabels", map(string().max_length(63).pattern(LABEL_VALUE))),
    ])
    .with("x-kubernetes-map-type", "atomic")
}

/// Alternatives, each of which has one of these fields.
pub(crate) fn alternatives(fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| required(field)).collect()
}

/// A list of rules of a type that serves allow rules, too: a deny rule has neither authentication nor DNS names, and says no more of its
/// ports than which.
pub(crate) fn deny<Rule: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    let mut rule = generator.subschema_for::<Rule>();
    if let Some(Value::Object(fields)) = rule.get_mut("properties") {
        fields.retain(|field, _| field != "authentication" && field != "toFQDNs");
    }
    if let Some(Value::Object(fields)) = rule.pointer_mut("/properties/toPorts/items/properties") {
        fields.retain(|field, _| field == "ports");
    }
    schemars::json_schema!({"type": "array", "items": rule})
}

pub(crate) fn icmp_type(_: &mut SchemaGenerator) -> schemars::Schema {
    let number_or_name = format!("^({ICMP_TYPE_NUMBER}|{})$", ICMP_TYPE_NAMES.join("|"));
    schemars::json_schema!({
        "pattern": number_or_name,
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    })
}

pub(crate) fn derivative_policies(_: &mut SchemaGenerator) -> schemars::Schema {
    map(object([
        ("annotations", map(string())),
        ("enforcing", boolean()),
        ("error", string()),
        ("lastUpdated", date_time()),
        ("localPolicyRevision", int64()),
        ("ok", boolean()),
    ]))
    .into()
}
