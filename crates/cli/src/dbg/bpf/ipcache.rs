// SPDX-License-Identifier: Apache-2.0
//! Identities of addresses, and the nodes they are behind.

use super::{Entries, flags};
use abi::ipcache::IpcacheEntry;
use abi::ipcache::flags::{NO_MASQUERADE, NODE};
use abi::maps::{Ipcache4, Ipcache6};
use anyhow::{Context, Result};
use datapath::Kernel;
use ipnet::IpNet;
use std::net::IpAddr;

pub(super) fn list<K: Kernel>(maps: &K) -> Result<Entries> {
    Ok(entries(maps)?.into_iter().map(|(prefix, entry)| (prefix.to_string(), show(&entry))).collect())
}

/// The entry of the longest prefix that contains the address.
pub(super) fn get<K: Kernel>(maps: &K, address: IpAddr) -> Result<String> {
    let all = entries(maps)?.into_iter().filter(|(prefix, _)| prefix.contains(&address));
    let (_, entry) =
        all.max_by_key(|(prefix, _)| prefix.prefix_len()).with_context(|| format!("{address} is unknown"))?;
    Ok(show(&entry))
}

pub(super) fn tunnels<K: Kernel>(maps: &K) -> Result<Entries> {
    let tunnelled = entries(maps)?.into_iter().filter(|(_, entry)| !entry.tunnel.is_none() && entry.flags & NODE == 0);
    Ok(tunnelled.map(|(prefix, entry)| (prefix.to_string(), format!("{}:0", entry.tunnel))).collect())
}

fn entries<K: Kernel>(maps: &K) -> Result<Vec<(IpNet, IpcacheEntry)>> {
    let mut all = Vec::new();
    for (key, entry) in maps.trie::<Ipcache4>()?.entries()? {
        all.push((prefix(key.data.into(), key.prefix_len)?, entry));
    }
    for (key, entry) in maps.trie::<Ipcache6>()?.entries()? {
        all.push((prefix(key.data.into(), key.prefix_len)?, entry));
    }
    all.sort_by_key(|(prefix, _)| *prefix);
    Ok(all)
}

fn prefix(address: IpAddr, length: u32) -> Result<IpNet> {
    let length = u8::try_from(length).context("a prefix in the map is too long")?;
    IpNet::new(address, length).context("a prefix in the map is too long")
}

fn show(entry: &IpcacheEntry) -> String {
    let tunnel = if entry.tunnel.is_none() { "0.0.0.0".to_owned() } else { entry.tunnel.to_string() };
    let flags = flags(entry.flags.into(), &[(u32::from(NO_MASQUERADE), "nomasquerade"), (u32::from(NODE), "node")]);
    format!("identity={} encryptkey={} tunnelendpoint={tunnel} flags={flags}", entry.identity, entry.encrypt_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::Addr;
    use datapath::LpmKey;

    #[test]
    fn both_families_are_listed_and_the_longest_prefix_wins() {
        let kernel = datapath::fake::Kernel::new();
        let node: Addr = "192.168.0.2".parse::<IpAddr>().unwrap().into();
        let entry = |identity, tunnel| IpcacheEntry { identity, tunnel, ..IpcacheEntry::default() };
        let v4 = kernel.trie::<Ipcache4>().unwrap();
        v4.insert(&LpmKey::new(0, [0; 4]), &entry(2, Addr::NONE)).unwrap();
        v4.insert(&LpmKey::new(32, [10, 0, 1, 20]), &entry(301, node)).unwrap();
        // Another address of that node, reached without the tunnel.
        v4.insert(&LpmKey::new(32, [192, 168, 9, 2]), &IpcacheEntry { flags: NODE, ..entry(6, node) }).unwrap();
        let v6 = kernel.trie::<Ipcache6>().unwrap();
        v6.insert(&LpmKey::new(0, [0; 16]), &IpcacheEntry { flags: 1, ..entry(10, Addr::NONE) }).unwrap();
        let text: Vec<String> = list(&kernel).unwrap().into_iter().map(|(k, v)| format!("{k} {v}")).collect();
        assert_eq!(
            text,
            [
                "0.0.0.0/0 identity=2 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>",
                "10.0.1.20/32 identity=301 encryptkey=0 tunnelendpoint=192.168.0.2 flags=<none>",
                "192.168.9.2/32 identity=6 encryptkey=0 tunnelendpoint=192.168.0.2 flags=node",
                "::/0 identity=10 encryptkey=0 tunnelendpoint=0.0.0.0 flags=nomasquerade",
            ]
        );
        assert!(get(&kernel, "10.0.1.20".parse().unwrap()).unwrap().starts_with("identity=301"));
        assert!(get(&kernel, "10.0.1.21".parse().unwrap()).unwrap().starts_with("identity=2 "));
        assert_eq!(tunnels(&kernel).unwrap(), [("10.0.1.20/32".to_owned(), "192.168.0.2:0".to_owned())]);
    }
}
