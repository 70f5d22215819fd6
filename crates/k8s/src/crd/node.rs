// SPDX-License-Identifier: Apache-2.0
//! Parts of CiliumNode's schema whose types keep what cloud providers write as it is.

use super::schema::{Schema, boolean, integer, list, map, object, one_of, string};
use schemars::SchemaGenerator;

fn count() -> Schema {
    integer().with("minimum", 0)
}

pub(crate) fn releases(_: &mut SchemaGenerator) -> schemars::Schema {
    map(one_of(["marked-for-release", "ready-for-release", "do-not-release", "released"])).into()
}

pub(crate) fn azure_spec(_: &mut SchemaGenerator) -> schemars::Schema {
    object([("interface-name", string())]).into()
}

pub(crate) fn alibaba_spec(_: &mut SchemaGenerator) -> schemars::Schema {
    object([
        ("availability-zone", string()),
        ("cidr-block", string()),
        ("instance-type", string()),
        ("security-group-tags", map(string())),
        ("security-groups", list(string())),
        ("vpc-id", string()),
        ("vswitch-tags", map(string())),
        ("vswitches", list(string())),
    ])
    .into()
}

pub(crate) fn eni_spec(_: &mut SchemaGenerator) -> schemars::Schema {
    object([
        ("availability-zone", string()),
        ("delete-on-termination", boolean()),
        ("disable-prefix-delegation", boolean()),
        ("exclude-interface-tags", map(string())),
        ("first-interface-index", count()),
        ("instance-id", string()),
        ("instance-type", string()),
        ("max-above-watermark", count()),
        ("min-allocate", count()),
        ("node-subnet-id", string()),
        ("pre-allocate", count()),
        ("security-group-tags", map(string())),
        ("security-groups", list(string())),
        ("subnet-ids", list(string())),
        ("subnet-tags", map(string())),
        ("use-primary-address", boolean()),
        ("vpc-id", string()),
    ])
    .into()
}

pub(crate) fn alibaba_status(_: &mut SchemaGenerator) -> schemars::Schema {
    object([("enis", map(alibaba_interface()))]).into()
}

pub(crate) fn azure_status(_: &mut SchemaGenerator) -> schemars::Schema {
    object([("interfaces", list(azure_interface()))]).into()
}

pub(crate) fn eni_status(_: &mut SchemaGenerator) -> schemars::Schema {
    object([("enis", map(eni_interface()))]).into()
}

fn alibaba_interface() -> Schema {
    object([
        ("instance-id", string()),
        ("mac-address", string()),
        ("network-interface-id", string()),
        ("primary-ip-address", string()),
        ("private-ipsets", list(object([("primary", boolean()), ("private-ip-address", string())]))),
        ("security-groupids", list(string())),
        ("tags", map(string())),
        ("type", string()),
        (
            "vpc",
            object([
                ("cidr", string()),
                ("ipv6-cidr", string()),
                ("secondary-cidrs", list(string())),
                ("vpc-id", string()),
            ]),
        ),
        ("vswitch", object([("cidr", string()), ("ipv6-cidr", string()), ("vswitch-id", string())])),
        ("zone-id", string()),
    ])
}

fn azure_interface() -> Schema {
    object([
        ("GatewayIP", string()),
        ("addresses", list(object([("ip", string()), ("state", string()), ("subnet", string())]))),
        ("cidr", string()),
        ("gateway", string()),
        ("id", string()),
        ("mac", string()),
        ("name", string()),
        ("security-group", string()),
        ("state", string()),
    ])
}

fn eni_interface() -> Schema {
    object([
        ("addresses", list(string())),
        ("availability-zone", string()),
        ("description", string()),
        ("id", string()),
        ("ip", string()),
        ("mac", string()),
        ("number", integer()),
        ("prefixes", list(string())),
        ("public-ip", string()),
        ("security-groups", list(string())),
        ("subnet", object([("cidr", string()), ("id", string())])),
        ("tags", map(string())),
        ("vpc", object([("cidrs", list(string())), ("id", string()), ("primary-cidr", string())])),
    ])
}
