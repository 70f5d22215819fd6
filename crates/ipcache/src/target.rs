// SPDX-License-Identifier: Apache-2.0
//! Writes the ipcache to the kernel, touching only what differs, and bumps the epoch of an address when that changes
//! what it is: flows to and from it were decided for something else. For a whole prefix the node's epoch is bumped.
//!
//! A new entry is such a change too, unless the covering prefix said the same: until then a pod's address was the
//! world, without a tunnel, and flows may have been decided that way.

use abi::Addr;
use abi::ipcache::{IpcacheEntry, flags};
use abi::maps::{Ipcache4, Ipcache6};
use datapath::{Due, Epochs, Kernel, LpmKey, Result, Trie};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{IdentityId, IpEntry};
use statedb::{Operation, Snapshot, Target};
use std::collections::BTreeMap;

/// Entries whose epochs are bumped together.
const TOGETHER: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct IpcacheTarget {
    v4: Trie<Ipcache4>,
    v6: Trie<Ipcache6>,
    epochs: Epochs,
    /// What the kernel has.
    present: BTreeMap<IpNet, IpcacheEntry>,
    due: Due,
}

impl IpcacheTarget {
    /// Opens the maps and reads their contents.
    pub(crate) fn open<K: Kernel>(kernel: &K, epochs: Epochs) -> Result<Self> {
        let (v4, v6) = (kernel.trie()?, kernel.trie()?);
        let present = read(&v4, &v6)?;
        Ok(Self { v4, v6, epochs, present, due: Due::default() })
    }

    /// The identities that prefixes already have in the kernel.
    pub(crate) fn identities(&self) -> Vec<(IpNet, IdentityId)> {
        self.present.iter().map(|(prefix, entry)| (*prefix, IdentityId(entry.identity))).collect()
    }

    fn write(&mut self, prefix: IpNet, entry: IpcacheEntry) -> Result<()> {
        if self.present.get(&prefix) != Some(&entry) {
            if self.before(prefix) != Some(entry) {
                self.outdate(prefix);
            }
            match prefix {
                IpNet::V4(net) => self.v4.insert(&key4(net), &entry)?,
                IpNet::V6(net) => self.v6.insert(&key6(net), &entry)?,
            }
            self.present.insert(prefix, entry);
        }
        Ok(())
    }

    fn erase(&mut self, prefix: IpNet) -> Result<()> {
        if self.present.contains_key(&prefix) {
            self.outdate(prefix);
            match prefix {
                IpNet::V4(net) => self.v4.remove(&key4(net))?,
                IpNet::V6(net) => self.v6.remove(&key6(net))?,
            };
            self.present.remove(&prefix);
        }
        Ok(())
    }

    /// What the addresses of a prefix have been until now.
    fn before(&self, prefix: IpNet) -> Option<IpcacheEntry> {
        let around = std::iter::successors(Some(prefix), IpNet::supernet);
        around.into_iter().find_map(|wider| self.present.get(&wider)).copied()
    }

    fn outdate(&mut self, prefix: IpNet) {
        if prefix.prefix_len() == prefix.max_prefix_len() {
            self.due.peer(prefix.addr());
        } else {
            self.due.node();
        }
    }
}

/// All that the kernel has: a system call per entry, or nearly so.
fn read(v4: &Trie<Ipcache4>, v6: &Trie<Ipcache6>) -> Result<BTreeMap<IpNet, IpcacheEntry>> {
    let v4 = v4.entries()?.into_iter().filter_map(|(key, entry)| Some((prefix4(&key)?, entry)));
    let v6 = v6.entries()?.into_iter().filter_map(|(key, entry)| Some((prefix6(&key)?, entry)));
    Ok(v4.chain(v6).collect())
}

/// The kernel's form of an entry.
fn value(entry: &IpEntry) -> IpcacheEntry {
    IpcacheEntry {
        identity: entry.identity.0,
        flags: flags_of(entry),
        encrypt_key: 0,
        pad: 0,
        tunnel: entry.tunnel.map_or(Addr::NONE, Addr::from),
    }
}

fn flags_of(entry: &IpEntry) -> u8 {
    let flags = [(entry.no_masquerade, flags::NO_MASQUERADE), (entry.node_address, flags::NODE)];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
}

fn key4(net: Ipv4Net) -> LpmKey<[u8; 4]> {
    LpmKey::new(u32::from(net.prefix_len()), net.network().octets())
}

fn key6(net: Ipv6Net) -> LpmKey<[u8; 16]> {
    LpmKey::new(u32::from(net.prefix_len()), net.network().octets())
}

fn prefix4(key: &LpmKey<[u8; 4]>) -> Option<IpNet> {
    Ipv4Net::new(key.data.into(), u8::try_from(key.prefix_len).ok()?).ok().map(IpNet::V4)
}

fn prefix6(key: &LpmKey<[u8; 16]>) -> Option<IpNet> {
    Ipv6Net::new(key.data.into(), u8::try_from(key.prefix_len).ok()?).ok().map(IpNet::V6)
}

impl Target<IpEntry> for IpcacheTarget {
    type Error = datapath::Error;

    async fn update(&mut self, row: &IpEntry) -> Result<()> {
        self.write(row.prefix, value(row))?;
        self.due.raise(&self.epochs)
    }

    async fn delete(&mut self, prefix: &IpNet) -> Result<()> {
        self.erase(*prefix)?;
        self.due.raise(&self.epochs)
    }

    /// Bump epochs once for several entries, but not so late that flows carry on for long under old decisions.
    async fn apply(&mut self, operations: &[Operation<IpEntry>]) -> Vec<(IpNet, datapath::Error)> {
        let mut failures = Vec::new();
        for operations in operations.chunks(TOGETHER) {
            let mut last = None;
            for operation in operations {
                let result = match operation {
                    Operation::Update(row) => self.write(row.prefix, value(row)),
                    Operation::Delete(prefix) => self.erase(*prefix),
                };
                match result {
                    Ok(()) => last = Some(operation.key()),
                    Err(error) => failures.push((operation.key(), error)),
                }
            }
            // Failed bumps stay due, so retrying one of the entries is enough.
            let raised = self.due.raise(&self.epochs);
            failures.extend(last.zip(raised.err()));
        }
        failures
    }

    async fn prune(&mut self, desired: &Snapshot<IpEntry>) -> Result<()> {
        let (v4, v6) = (self.v4.clone(), self.v6.clone());
        self.present = statedb::blocking(move || read(&v4, &v6)).await?;
        let superfluous: Vec<_> =
            self.present.keys().filter(|prefix| desired.get(*prefix).is_none()).copied().collect();
        let erased: Result<()> = superfluous.into_iter().try_for_each(|prefix| self.erase(prefix));
        self.due.raise(&self.epochs)?;
        erased
    }
}

#[cfg(test)]
mod tests;
