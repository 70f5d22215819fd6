// SPDX-License-Identifier: Apache-2.0
//! CiliumLoadBalancerIPPools to rows. An unusable block is reported, and the others count.

use crate::range::Range;
use crate::selector::Selector;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s::cilium::{CiliumLoadBalancerIPPool, LoadBalancerIPBlock};
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::{Resource, ResourceExt};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A pool. One row per CiliumLoadBalancerIPPool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    /// The object, whatever its version.
    pub(crate) reference: ObjectReference,
    /// Version of the object.
    pub(crate) version: String,
    pub(crate) created: Timestamp,
    pub(crate) generation: Option<i64>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) conditions: Vec<Condition>,
}

impl statedb::Row for Pool {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.name.clone()
    }
}

/// The spec of a pool, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) blocks: Vec<Block>,
    /// `None` if it is invalid: owners then keep their addresses, and nobody gets one.
    pub(crate) selector: Option<Selector>,
    pub(crate) disabled: bool,
    /// What is wrong with it, by field.
    pub(crate) faults: Vec<String>,
    /// A block is unreadable, so it is unknown which addresses belong to the pool.
    pub(crate) unreadable: bool,
}

/// A range of addresses as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which one of `spec.blocks` it is.
    number: usize,
    pub(crate) range: Range,
    prefix: Option<IpNet>,
    /// The first and the last address are never given out.
    pub(crate) spares_ends: bool,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => prefix.fmt(f),
            None if self.range.first == self.range.last => self.range.first.fmt(f),
            None => write!(f, "{}-{}", self.range.first, self.range.last),
        }
    }
}

impl Block {
    /// The field that declares it.
    pub(crate) fn field(&self) -> String {
        format!("spec.blocks[{}]", self.number)
    }
}

impl Pool {
    /// The row of an object.
    #[must_use]
    pub fn ingest(object: &CiliumLoadBalancerIPPool) -> Option<Self> {
        let status = object.status.as_ref();
        Some(Self {
            name: object.metadata.name.as_deref()?.into(),
            reference: object.object_ref(&()),
            version: object.resource_version().unwrap_or_default(),
            created: object.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
            generation: object.metadata.generation,
            spec: Arc::new(Spec::ingest(object)),
            conditions: status.and_then(|status| status.conditions.clone()).unwrap_or_default(),
        })
    }

    /// Whether an address belongs to this pool, owned or not.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.spec.blocks.iter().any(|block| block.range.contains(address))
    }
}

impl Spec {
    fn ingest(object: &CiliumLoadBalancerIPPool) -> Self {
        let spec = &object.spec;
        let (mut blocks, mut faults) = (Vec::new(), Vec::new());
        let spares_ends = spec.allow_first_last_ips.as_deref() == Some("No");
        for (n, block) in spec.blocks.iter().flatten().enumerate() {
            match parse(block, spares_ends).and_then(usable) {
                Ok(block) => blocks.push(Block { number: n, ..block }),
                Err(fault) => faults.push(format!("spec.blocks[{n}]{fault}")),
            }
        }
        let unreadable = !faults.is_empty();
        let selector = spec
            .service_selector
            .as_ref()
            .map_or(Ok(Selector::default()), |selector| Selector::parse("spec.serviceSelector", selector));
        faults.extend(selector.as_ref().err().cloned());
        Self { blocks, selector: selector.ok(), disabled: spec.disabled == Some(true), faults, unreadable }
    }
}

fn parse(block: &LoadBalancerIPBlock, spares_ends: bool) -> Result<Block, String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (given(&block.cidr), given(&block.start), given(&block.stop)) {
        (Some(cidr), None, None) => {
            let prefix: IpNet = cidr.parse().map_err(|_| format!(".cidr: {cidr:?} is not a prefix"))?;
            let prefix = prefix.trunc();
            // A prefix of one or two addresses would be left with none.
            let spares_ends = spares_ends && prefix.max_prefix_len() - prefix.prefix_len() > 1;
            Ok(Block { number: 0, range: prefix.into(), prefix: Some(prefix), spares_ends })
        }
        (None, Some(start), stop) => {
            let first = address("start", &start)?;
            let last = stop.as_deref().map_or(Ok(first), |stop| address("stop", stop))?;
            let wrong = || format!(".stop: start {first} and stop {last} are not the ends of a range");
            let range = Range::new(first, last).ok_or_else(wrong)?;
            Ok(Block { number: 0, range, prefix: None, spares_ends: false })
        }
        (Some(_), _, _) => Err(": has both cidr and start or stop".to_owned()),
        (None, None, Some(_)) => Err(".start: is missing".to_owned()),
        (None, None, None) => Err(": has neither cidr nor start".to_owned()),
    }
}

fn address(field: &str, text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!(".{field}: {text:?} is not an IP address"))
}

/// Rejects ranges with addresses that a Service cannot have.
fn usable(block: Block) -> Result<Block, String> {
    let Some(special) = SPECIAL.iter().find(|special| Range::from(**special).overlaps(&block.range)) else {
        return Ok(block);
    };
    let has = |address| Range::from(*special).contains(address);
    let field = match block.prefix {
        Some(_) => ".cidr",
        None if has(block.range.first) => ".start",
        None if has(block.range.last) => ".stop",
        None => "",
    };
    Err(format!("{field}: {block} holds addresses of {special}, which no Service can have"))
}

/// Unspecified, loopback, link-local, multicast and broadcast, and IPv4 written as IPv6.
const SPECIAL: [IpNet; 10] = [
    v4(Ipv4Addr::new(0, 0, 0, 0), 8),
    v4(Ipv4Addr::new(127, 0, 0, 0), 8),
    v4(Ipv4Addr::new(169, 254, 0, 0), 16),
    v4(Ipv4Addr::new(224, 0, 0, 0), 4),
    v4(Ipv4Addr::BROADCAST, 32),
    v6(Ipv6Addr::UNSPECIFIED, 128),
    v6(Ipv6Addr::LOCALHOST, 128),
    v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

const fn v4(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, length))
}

const fn v6(address: Ipv6Addr, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::{Value, json};

    fn ingest(spec: Value) -> Pool {
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        Pool::ingest(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn blocks_are_prefixes_ranges_and_single_addresses() {
        let blocks = json!([
            {"cidr": "10.0.10.7/24"}, {"cidr": "2004::/64"}, {"start": "20.0.20.100", "stop": "20.0.20.200"}, {"start": "1.2.3.4"},
        ]);
        let pool = ingest(json!({"blocks": blocks}));
        let shown: Vec<String> = pool.spec.blocks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.10.0/24", "2004::/64", "20.0.20.100-20.0.20.200", "1.2.3.4"]);
        assert!(pool.spec.faults.is_empty() && !pool.spec.unreadable && !pool.spec.disabled);
    }

    #[test]
    fn a_block_that_cannot_be_used_is_named_and_the_others_count() {
        for (block, fault) in [
            (json!({"cidr": "10.0.0.0/33"}), ".cidr: \"10.0.0.0/33\" is not a prefix"),
            (json!({"start": "10.0.0"}), ".start: \"10.0.0\" is not an IP address"),
            (json!({"start": "10.0.0.1", "stop": "x"}), ".stop: \"x\" is not an IP address"),
            (json!({"stop": "10.0.0.1"}), ".start: is missing"),
            (json!({"cidr": "", "start": ""}), ": has neither cidr nor start"),
            (json!({"cidr": "10.0.0.0/24", "start": "10.0.0.1"}), ": has both cidr and start or stop"),
            (
                json!({"start": "10.0.0.9", "stop": "10.0.0.1"}),
                ".stop: start 10.0.0.9 and stop 10.0.0.1 are not the ends of a range",
            ),
            (
                json!({"start": "10.0.0.1", "stop": "fd00::1"}),
                ".stop: start 10.0.0.1 and stop fd00::1 are not the ends of a range",
            ),
            (json!({"cidr": "0.0.0.0/0"}), ".cidr: 0.0.0.0/0 holds addresses of 0.0.0.0/8, which no Service can have"),
            (json!({"cidr": "::/0"}), ".cidr: ::/0 holds addresses of ::/128, which no Service can have"),
            (
                json!({"start": "::ffff:10.0.0.1"}),
                ".start: ::ffff:10.0.0.1 holds addresses of ::ffff:0.0.0.0/96, which no Service can have",
            ),
            (
                json!({"start": "126.0.0.1", "stop": "127.0.0.1"}),
                ".stop: 126.0.0.1-127.0.0.1 holds addresses of 127.0.0.0/8, which no Service can have",
            ),
            (
                json!({"start": "126.0.0.1", "stop": "128.0.0.1"}),
                ": 126.0.0.1-128.0.0.1 holds addresses of 127.0.0.0/8, which no Service can have",
            ),
        ] {
            let pool = ingest(json!({"blocks": [{"cidr": "10.1.0.0/16"}, block]}));
            assert_eq!((pool.spec.blocks.len(), pool.spec.unreadable), (1, true));
            assert_eq!(pool.spec.faults, [format!("spec.blocks[1]{fault}")]);
        }
    }

    #[test]
    fn first_and_last_addresses_are_spared_where_that_leaves_any() {
        let blocks = json!([{"cidr": "10.0.0.0/30"}, {"cidr": "10.0.1.0/31"}, {"cidr": "fd00::/128"}, {"start": "10.0.2.0", "stop": "10.0.2.9"}]);
        let spares = |allow: &str| -> Vec<bool> {
            let pool = ingest(json!({"blocks": blocks, "allowFirstLastIPs": allow}));
            pool.spec.blocks.iter().map(|block| block.spares_ends).collect()
        };
        assert_eq!(spares("No"), [true, false, false, false]);
        assert_eq!(spares("Yes"), [false; 4]);
    }

    #[test]
    fn a_selector_that_means_nothing_is_named() {
        let selector = json!({"matchExpressions": [{"key": "k", "operator": "In"}]});
        let pool = ingest(json!({"blocks": [{"cidr": "10.1.0.0/16"}], "serviceSelector": selector}));
        assert_eq!(pool.spec.selector, None);
        assert_eq!(pool.spec.faults, ["spec.serviceSelector.matchExpressions[0].values: is empty"]);
        assert!(!pool.spec.unreadable);
    }
}
