// SPDX-License-Identifier: Apache-2.0
//! Services: each frontend with a line per slot, or one of the maps they consist of.

use super::{Entries, protocol, socket};
use abi::lb::{Backend, SCOPE_INTERNAL, Service, ServiceKey, SourceRangeKey, state};
use abi::maps::{Affinities, Backends, Maglev, Services, SourceRanges};
use anyhow::{Result, bail};
use clap::Args;
use datapath::Kernel;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// Which list of Services to show.
#[derive(Args, Debug, Default)]
#[group(multiple = false)]
pub(super) struct What {
    /// Frontends without their backends.
    #[arg(long)]
    frontends: bool,
    /// Backends by their numbers.
    #[arg(long)]
    backends: bool,
    /// Frontends by the numbers that replies find them by.
    #[arg(long)]
    revnat: bool,
    /// Clients that are let in or refused.
    #[arg(long)]
    source_ranges: bool,
}

/// The header and the entries.
pub(super) fn list<K: Kernel>(maps: &K, what: &What) -> Result<([&'static str; 2], Entries)> {
    Ok(match what {
        What { backends: true, .. } => (["ID", "BACKEND ADDRESS"], backends(maps)?),
        What { revnat: true, .. } => (["ID", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"], revnat(maps)?),
        What { source_ranges: true, .. } => (["SOURCE RANGE", "SERVICE (REVNAT_ID)"], source_ranges(maps)?),
        What { frontends, .. } => {
            (["SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"], services(maps, !*frontends)?)
        }
    })
}

fn services<K: Kernel>(maps: &K, with_slots: bool) -> Result<Entries> {
    let lines = services::dump::lb_list(&services::Maps::open(maps)?)?;
    let lines = lines.into_iter().filter(|line| with_slots || line.service.ends_with(" (0)"));
    Ok(lines.map(|line| (line.service, line.backend)).collect())
}

/// In the order of their addresses.
fn frontends<K: Kernel>(maps: &K) -> Result<Vec<(ServiceKey, Service)>> {
    let mut services = maps.map::<Services>()?.entries()?;
    services.retain(|(key, _)| !key.is_mark());
    services.sort_by_key(|(key, _)| (IpAddr::from(key.addr), u16::from_be(key.port), key.proto, key.scope));
    Ok(services)
}

fn frontend(key: &ServiceKey) -> String {
    let scope = if key.scope == SCOPE_INTERNAL { "/i" } else { "" };
    format!("{}/{}{scope}", socket(key.addr, key.port), protocol(key.proto))
}

fn backends<K: Kernel>(maps: &K) -> Result<Entries> {
    let all: BTreeMap<u32, Backend> = maps.map::<Backends>()?.entries()?.into_iter().collect();
    let row = |(id, backend): (u32, Backend)| {
        let state = match backend.state {
            state::ACTIVE => "",
            state::TERMINATING => " (terminating)",
            _ => " (quarantined)",
        };
        let address = format!("{}/{}", socket(backend.addr, backend.port), protocol(backend.proto));
        (id.to_string(), format!("{address}{state}"))
    };
    Ok(all.into_iter().map(row).collect())
}

fn revnat<K: Kernel>(maps: &K) -> Result<Entries> {
    let by_id: BTreeMap<u32, ServiceKey> =
        frontends(maps)?.into_iter().map(|(key, service)| (service.id, key)).collect();
    Ok(by_id.into_iter().map(|(id, key)| (id.to_string(), socket(key.addr, key.port))).collect())
}

fn source_ranges<K: Kernel>(maps: &K) -> Result<Entries> {
    let by_id: HashMap<u32, ServiceKey> =
        frontends(maps)?.into_iter().map(|(key, service)| (service.id, key)).collect();
    let row = |key: datapath::LpmKey<SourceRangeKey>| {
        let (data, bits) = (key.data, key.prefix_len.saturating_sub(u32::BITS));
        let client = Ipv6Addr::from(data.client);
        let range = match client.to_ipv4_mapped() {
            Some(client) => format!("{client}/{}", bits.saturating_sub(96)),
            None => format!("{client}/{bits}"),
        };
        let id = data.id();
        let name = by_id.get(&id).map_or_else(|| "not found".to_owned(), frontend);
        let refused = if data.service == id { "" } else { " (refused)" };
        (range, format!("{name} ({id}){refused}"))
    };
    let mut rows: Entries = maps.trie::<SourceRanges>()?.keys()?.into_iter().map(row).collect();
    rows.sort();
    Ok(rows)
}

/// The lookup tables: the backend at each position, by service.
pub(super) fn maglev<K: Kernel>(maps: &K, service: Option<u32>) -> Result<Entries> {
    let mut tables: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for (key, part) in maps.map::<Maglev>()?.entries()? {
        if service.is_none_or(|service| service == key.service) {
            let backends = part.backends.as_flattened().to_vec();
            tables.entry(key.service).or_default().insert(key.part, backends);
        }
    }
    if let Some(service) = service.filter(|service| !tables.contains_key(service)) {
        bail!("the service {service} has no lookup table");
    }
    let row = |(id, parts): (u32, BTreeMap<u32, Vec<u32>>)| {
        // Behind the end of the table there is none.
        let backends = parts.into_values().flatten().filter(|backend| *backend != 0);
        (id.to_string(), format!("{:?}", backends.collect::<Vec<_>>()))
    };
    Ok(tables.into_iter().map(row).collect())
}

/// Clients of services with session affinity, and where they went last.
pub(super) fn affinity<K: Kernel>(maps: &K) -> Result<Entries> {
    let row = |(key, value): (abi::lb::AffinityKey, abi::lb::Affinity)| {
        let client =
            if key.is_cookie == 1 { format!("netns {}", key.client.lo) } else { IpAddr::from(key.client).to_string() };
        (format!("{} {client}", key.service), value.backend.to_string())
    };
    let mut rows: Entries = maps.map::<Affinities>()?.entries()?.into_iter().map(row).collect();
    rows.sort();
    Ok(rows)
}

#[cfg(test)]
mod tests;
