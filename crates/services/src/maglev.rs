// SPDX-License-Identifier: Apache-2.0
//! Lookup tables of Maglev (Eisenbud et al., NSDI 2016, 3.4): each backend prefers the positions in an order of its own, and they take turns.
//! Every node makes the same table of the same backends, and one backend more or less moves few positions of others.

use abi::lb::{MAGLEV_PART, MaglevPart};
use model::{Backend, L4Addr};
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// How tables are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maglev {
    /// Positions; a prime.
    pub(crate) size: u32,
    /// What the hashes begin with.
    pub(crate) seed: String,
}

impl Maglev {
    /// The numbers of the backends by position; empty if there are none. Backends are given in the order of their addresses.
    pub(crate) fn table<'a>(&self, backends: impl Iterator<Item = &'a Backend>) -> Vec<u32> {
        let mut turns: Vec<_> = backends.map(|backend| (backend.id.0, self.preferences(&backend.addr))).collect();
        let mut table = vec![0; if turns.is_empty() { 0 } else { self.size as usize }];
        let mut left = table.len();
        while left > 0 {
            for (id, preferred) in turns.iter_mut().take(left) {
                if let Some(free) = preferred.find(|at| table.get(*at) == Some(&0)).and_then(|at| table.get_mut(at)) {
                    *free = *id;
                    left -= 1;
                }
            }
        }
        table
    }

    /// The same in the parts that the map has it in.
    pub(crate) fn parts<'a>(&self, backends: impl Iterator<Item = &'a Backend>) -> Vec<MaglevPart> {
        self.table(backends).chunks(MAGLEV_PART).map(part).collect()
    }

    /// All positions over and over, in the order in which the backend wants them.
    fn preferences(&self, addr: &L4Addr) -> impl Iterator<Item = usize> + use<> {
        let (hash, size) = (self.hash(addr), u64::from(self.size));
        let [offset, skip] = [hash >> 64, hash].map(|half| half as u64);
        let skip = skip % (size - 1) + 1;
        std::iter::successors(Some(offset % size), move |at| Some((at + skip) % size)).map(|at| at as usize)
    }

    fn hash(&self, addr: &L4Addr) -> u128 {
        let ip = match addr.ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut hash = Sha256::new();
        hash.update(&self.seed);
        hash.update(ip.octets());
        hash.update(addr.port.to_be_bytes());
        hash.update([addr.protocol.number()]);
        hash.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

fn part(positions: &[u32]) -> MaglevPart {
    let mut part = MaglevPart { backends: [[0; 16]; MAGLEV_PART / 16] };
    part.backends.as_flattened_mut().iter_mut().zip(positions).for_each(|(to, from)| *to = *from);
    part
}

#[cfg(test)]
mod tests;
