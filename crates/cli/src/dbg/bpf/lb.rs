// SPDX-License-Identifier: Apache-2.0
//! Services: each frontend, and a line for each of its slots.

use super::{Entries, protocol, socket};
use abi::lb::flags::CLUSTER_IP;
use abi::lb::{Backend, SCOPE_INTERNAL, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Services, Slots};
use anyhow::Result;
use datapath::Kernel;
use std::collections::HashMap;
use std::net::IpAddr;

pub(super) fn list<K: Kernel>(maps: &K) -> Result<Entries> {
    let mut services = maps.map::<Services>()?.entries()?;
    let slots: HashMap<SlotKey, u32> = maps.map::<Slots>()?.entries()?.into_iter().collect();
    let backends: HashMap<u32, Backend> = maps.map::<Backends>()?.entries()?.into_iter().collect();
    services.retain(|(key, _)| !key.is_mark());
    services.sort_by_key(|(key, _)| (IpAddr::from(key.addr), u16::from_be(key.port), key.proto, key.scope));
    let mut entries = Vec::new();
    for (key, service) in &services {
        entries.extend(rows(key, service, &slots, &backends));
    }
    Ok(entries)
}

fn rows(
    key: &ServiceKey,
    service: &Service,
    slots: &HashMap<SlotKey, u32>,
    backends: &HashMap<u32, Backend>,
) -> Entries {
    let scope = if key.scope == SCOPE_INTERNAL { "/i" } else { "" };
    let frontend = format!("{}/{}{scope}", socket(key.addr, key.port), protocol(key.proto));
    let kind = if service.flags & CLUSTER_IP != 0 { "ClusterIP, non-routable" } else { "external" };
    let unspecified = if key.addr.is_v4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut rows = vec![(format!("{frontend} (0)"), format!("{unspecified} ({}) (0) [{kind}]", service.id))];
    for slot in 0..service.count {
        let backend = slots.get(&SlotKey { service: service.id, slot });
        let known = backend.and_then(|id| backends.get(id));
        let address = match (known, backend) {
            (Some(backend), _) => format!("{}/{}", socket(backend.addr, backend.port), protocol(backend.proto)),
            (None, Some(id)) => format!("backend {id} not found"),
            (None, None) => "slot not found".to_owned(),
        };
        // Slots count from one where people read them: the frontend itself is the slot 0.
        let number = slot + 1;
        rows.push((format!("{frontend} ({number})"), format!("{address} ({}) ({number})", service.id)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_followed_by_its_slots_and_the_mark_of_its_address_is_not_shown() {
        let kernel = datapath::fake::Kernel::new();
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let key = ServiceKey { addr: addr("10.96.0.1"), port: 443_u16.to_be(), proto: 6, scope: 0, pad: 0 };
        let service = Service { id: 3, count: 2, flags: CLUSTER_IP, affinity: 0 };
        kernel.map::<Services>().unwrap().insert(&key, &service).unwrap();
        kernel.map::<Services>().unwrap().insert(&ServiceKey::mark(key.addr), &Service::MARK).unwrap();
        kernel.map::<Slots>().unwrap().insert(&SlotKey { service: 3, slot: 0 }, &77).unwrap();
        let backend = Backend { addr: addr("fd00::1"), port: 6443_u16.to_be(), proto: 6, state: 0, pad: 0 };
        kernel.map::<Backends>().unwrap().insert(&77, &backend).unwrap();
        let text: Vec<String> = list(&kernel).unwrap().into_iter().map(|(k, v)| format!("{k} | {v}")).collect();
        assert_eq!(
            text,
            [
                "10.96.0.1:443/TCP (0) | 0.0.0.0:0 (3) (0) [ClusterIP, non-routable]",
                "10.96.0.1:443/TCP (1) | [fd00::1]:6443/TCP (3) (1)",
                "10.96.0.1:443/TCP (2) | slot not found (3) (2)",
            ]
        );
    }
}
