// SPDX-License-Identifier: Apache-2.0
//! Schema of CiliumNode.

use super::schema::{Schema, boolean, int64, integer, list, map, object, one_of, string};

pub(super) fn schema() -> Schema {
    object([("spec", spec()), ("status", status())]).required(["spec"])
}

fn spec() -> Schema {
    object([
        ("addresses", list(object([("ip", string()), ("type", string())]))),
        ("alibaba-cloud", alibaba_spec()),
        ("azure", object([("interface-name", string())])),
        ("bootid", string()),
        ("encryption", object([("key", integer())])),
        ("eni", eni_spec()),
        ("health", address_pair()),
        ("ingress", address_pair()),
        ("instance-id", string()),
        ("ipam", ipam_spec()),
        ("nodeidentity", int64()),
    ])
}

fn address_pair() -> Schema {
    object([("ipv4", string()), ("ipv6", string())])
}

fn count() -> Schema {
    integer().with("minimum", 0)
}

fn owned() -> Schema {
    map(object([("owner", string()), ("resource", string())]))
}

fn ipam_spec() -> Schema {
    let allocated =
        object([("cidrs", list(string().format("cidr"))), ("pool", string().not_empty())]).required(["pool"]);
    let needed = object([("ipv4-addrs", integer()), ("ipv6-addrs", integer())]);
    let requested = object([("needed", needed), ("pool", string().not_empty())]).required(["pool"]);
    object([
        ("ipv6-pool", owned()),
        ("max-above-watermark", count()),
        ("max-allocate", count()),
        ("min-allocate", count()),
        ("podCIDRs", list(string())),
        ("pool", owned()),
        ("pools", object([("allocated", list(allocated)), ("requested", list(requested))])),
        ("pre-allocate", count()),
        ("static-ip-tags", map(string())),
    ])
}

fn alibaba_spec() -> Schema {
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
}

fn eni_spec() -> Schema {
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
}

fn status() -> Schema {
    object([
        ("alibaba-cloud", object([("enis", map(alibaba_interface()))])),
        ("azure", object([("interfaces", list(azure_interface()))])),
        ("eni", object([("enis", map(eni_interface()))])),
        ("ipam", ipam_status()),
    ])
}

fn ipam_status() -> Schema {
    let release = || map(one_of(["marked-for-release", "ready-for-release", "do-not-release", "released"]));
    object([
        ("assigned-static-ip", string()),
        ("ipv6-used", owned()),
        ("operator-status", object([("error", string())])),
        ("pod-cidrs", map(object([("status", one_of(["released", "depleted", "in-use"]))]))),
        ("release-ips", release()),
        ("release-ipv6s", release()),
        ("used", owned()),
    ])
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
