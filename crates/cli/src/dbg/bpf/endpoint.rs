// SPDX-License-Identifier: Apache-2.0
//! Local endpoints, and the node itself, by address.

use super::{Entries, flags};
use abi::endpoint::flags::{ANY_SOURCE, EGRESS_ENFORCED, HOST, INGRESS_ENFORCED, NOT_READY};
use abi::maps::Locals;
use anyhow::Result;
use datapath::Kernel;
use model::Mac;
use std::net::IpAddr;

pub(super) fn list<K: Kernel>(maps: &K) -> Result<Entries> {
    let names = [
        (u32::from(INGRESS_ENFORCED), "ingress"),
        (u32::from(EGRESS_ENFORCED), "egress"),
        (u32::from(NOT_READY), "not-ready"),
        (u32::from(ANY_SOURCE), "any-source"),
    ];
    let mut entries = maps.map::<Locals>()?.entries()?;
    entries.sort_by_key(|(addr, _)| IpAddr::from(*addr));
    let show = |(addr, e): (abi::Addr, abi::endpoint::Endpoint)| {
        let value = if e.flags & HOST != 0 {
            "(localhost)".to_owned()
        } else {
            let bits = flags(e.flags.into(), &names);
            let (mac, host) = (Mac(e.mac), Mac(e.host_mac));
            format!(
                "id={:<5} sec_id={:<5} flags={bits} ifindex={:<3} mac={mac} nodemac={host} policy={}",
                e.id, e.identity, e.ifindex, e.policy
            )
        };
        (format!("{}:0", IpAddr::from(addr)), value)
    };
    Ok(entries.into_iter().map(show).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::endpoint::Endpoint;

    #[test]
    fn pods_and_the_host_are_told_apart() {
        let kernel = datapath::fake::Kernel::new();
        let map = kernel.map::<Locals>().unwrap();
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        map.insert(&addr("10.0.0.1"), &Endpoint { flags: HOST, ..Endpoint::default() }).unwrap();
        let pod = Endpoint {
            id: 10,
            identity: 300,
            ifindex: 42,
            policy: 7,
            flags: INGRESS_ENFORCED,
            mac: [2, 0, 0, 0, 0, 10],
            ..Endpoint::default()
        };
        map.insert(&addr("10.0.0.10"), &pod).unwrap();
        let want =
            "id=10    sec_id=300   flags=ingress ifindex=42  mac=02:00:00:00:00:0a nodemac=00:00:00:00:00:00 policy=7";
        assert_eq!(
            list(&kernel).unwrap(),
            [("10.0.0.1:0".to_owned(), "(localhost)".to_owned()), ("10.0.0.10:0".to_owned(), want.to_owned())]
        );
    }
}
