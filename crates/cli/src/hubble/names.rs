// SPDX-License-Identifier: Apache-2.0
//! Words for numbers of the protocol.

pub(super) use hubble::POLICY_VERDICT;

/// Trace observation points by their number in the datapath.
const POINTS: [&str; 14] = [
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
];

pub(crate) fn observation_point(number: i32) -> String {
    let name = usize::try_from(number).ok().and_then(|n| POINTS.get(n));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

pub(super) fn observation_point_number(name: &str) -> Option<i32> {
    POINTS.iter().position(|p| *p == name).and_then(|n| n.try_into().ok())
}

/// How a policy matched.
pub(crate) fn policy_match(number: u32) -> String {
    let names = ["none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only"];
    let name = usize::try_from(number).ok().and_then(|n| names.get(n));
    name.map_or_else(|| format!("unknown({number})"), |name| (*name).to_owned())
}

/// Why a packet was dropped.
pub(crate) fn drop_reason(number: i32) -> String {
    let known = u8::try_from(number).ok().and_then(abi::drop_reason::DropReason::from_code);
    known.map_or_else(|| number.to_string(), |reason| reason.text().to_owned())
}
