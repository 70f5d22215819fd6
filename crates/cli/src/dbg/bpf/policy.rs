// SPDX-License-Identifier: Apache-2.0
//! Compiled policy. Endpoints of one identity share one, so entries are listed by policy.

use super::{Output, protocol};
use crate::table::Table;
use abi::maps::{Endpoints, Policies};
use abi::policy::{DENY_PRECEDENCE, EGRESS, PREFIX_L3, PREFIX_PORT, PREFIX_PROTO};
use anyhow::{Context, Result, bail};
use datapath::Kernel;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Entry {
    policy: u32,
    direction: &'static str,
    /// 0 stands for any.
    identity: u32,
    protocol: String,
    port: u16,
    /// How many ports, as a mask of leading bits.
    port_bits: u32,
    action: &'static str,
    proxy_port: u16,
    precedence: u32,
    provenance: u32,
}

pub(super) fn list<K: Kernel>(maps: &K, endpoint: Option<u16>) -> Result<Vec<Entry>> {
    let wanted = match endpoint {
        Some(id) => {
            let all = maps.map::<Endpoints>()?.entries()?;
            let found = all.into_iter().find(|(_, endpoint)| endpoint.id == id);
            let (_, endpoint) = found.with_context(|| format!("there is no endpoint {id}"))?;
            if endpoint.policy == 0 {
                bail!("no policy applies to endpoint {id}");
            }
            Some(endpoint.policy)
        }
        None => None,
    };
    let mut entries = Vec::new();
    for (key, value) in maps.trie::<Policies>()?.entries()? {
        let (data, length) = (key.data, key.prefix_len);
        if wanted.is_some_and(|policy| data.policy != policy) {
            continue;
        }
        let port_bits = length.saturating_sub(PREFIX_PROTO).min(PREFIX_PORT - PREFIX_PROTO);
        entries.push(Entry {
            policy: data.policy,
            direction: if data.direction == EGRESS { "Egress" } else { "Ingress" },
            identity: data.identity,
            protocol: protocol(if length > PREFIX_L3 { data.proto } else { 0 }),
            port: u16::from_be(data.port),
            port_bits,
            action: if value.deny != 0 { "Deny" } else { "Allow" },
            proxy_port: u16::from_be(value.proxy_port),
            precedence: value.precedence,
            provenance: value.provenance,
        });
    }
    entries.sort();
    Ok(entries)
}

pub(super) fn show(entries: Vec<Entry>, output: &Output) -> Result<()> {
    output.format().print(&entries, || table(&entries).to_string())
}

fn table(entries: &[Entry]) -> Table {
    let mut table =
        Table::new(["ID", "POLICY", "DIRECTION", "IDENTITY", "PORT/PROTO", "PROXY PORT", "PRECEDENCE", "PROVENANCE"]);
    for e in entries {
        let identity = if e.identity == 0 { "ANY".to_owned() } else { e.identity.to_string() };
        let proxy = if e.proxy_port == 0 { "NONE".to_owned() } else { e.proxy_port.to_string() };
        let precedence = if e.precedence == DENY_PRECEDENCE { "DENY".to_owned() } else { e.precedence.to_string() };
        table.row([
            e.policy.to_string(),
            e.action.to_owned(),
            e.direction.to_owned(),
            identity,
            ports(e),
            proxy,
            precedence,
            e.provenance.to_string(),
        ]);
    }
    table
}

fn ports(entry: &Entry) -> String {
    match entry.port_bits {
        0 => entry.protocol.clone(),
        16 => format!("{}/{}", entry.port, entry.protocol),
        bits => {
            let last = u32::from(entry.port) + (1 << (16 - bits)) - 1;
            format!("{}-{last}/{}", entry.port, entry.protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::endpoint::Endpoint;
    use abi::policy::{INGRESS, PolicyEntry, PolicyKey};
    use datapath::LpmKey;

    #[test]
    fn entries_say_whom_and_which_ports_they_are_about() {
        let kernel = datapath::fake::Kernel::new();
        let map = kernel.trie::<Policies>().unwrap();
        let key = |policy, identity, proto, port: u16| PolicyKey {
            policy,
            identity,
            direction: INGRESS,
            proto,
            port: port.to_be(),
        };
        let allow = |prefix_len: u32| PolicyEntry {
            precedence: 5,
            provenance: 9,
            prefix_len: u8::try_from(prefix_len).unwrap(),
            ..PolicyEntry::default()
        };
        let insert = |length, key, entry| map.insert(&LpmKey::new(length, key), &entry).unwrap();
        insert(PREFIX_PORT, key(7, 300, 6, 80), allow(PREFIX_PORT));
        insert(PREFIX_PORT - 4, key(7, 0, 6, 4096), allow(PREFIX_PORT - 4));
        insert(PREFIX_PROTO, key(7, 300, 17, 0), allow(PREFIX_PROTO));
        let deny = PolicyEntry { deny: 1, precedence: DENY_PRECEDENCE, ..allow(PREFIX_L3) };
        insert(PREFIX_L3, key(8, 2, 0, 0), deny);
        let endpoint = Endpoint { id: 10, policy: 7, ..Endpoint::default() };
        kernel.map::<Endpoints>().unwrap().insert(&42, &endpoint).unwrap();
        assert_eq!(
            table(&list(&kernel, None).unwrap()).to_string(),
            include_str!("../../../tests/golden/bpf-policy.txt")
        );
        assert_eq!(list(&kernel, Some(10)).unwrap().len(), 3);
        assert!(list(&kernel, Some(11)).is_err());
    }
}
