// SPDX-License-Identifier: Apache-2.0
//! Ports of this node at which the proxy listens for what the kernel hands to it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Below those that Linux gives out by itself, and where Cilium's users expect them.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// Which listener has which port. A listener keeps its port while it is there, and has the same again after a restart unless another
/// wants it too.
#[derive(Debug, Default)]
pub(super) struct Ports {
    by_listener: BTreeMap<String, u16>,
    taken: BTreeSet<u16>,
    /// Listeners for which there was none.
    refused: BTreeSet<String>,
}

impl Ports {
    /// The port of a listener; nothing if all are taken.
    pub(super) fn claim(&mut self, listener: &str) -> Option<u16> {
        if let Some(port) = self.by_listener.get(listener) {
            return Some(*port);
        }
        let mut hasher = DefaultHasher::new();
        listener.hash(&mut hasher);
        let start = u16::try_from(hasher.finish() % u64::from(COUNT)).unwrap_or_default();
        let port = (0..COUNT).map(|step| FIRST + (start + step) % COUNT).find(|port| self.taken.insert(*port));
        match port {
            Some(port) => drop(self.by_listener.insert(listener.to_owned(), port)),
            None => drop(self.refused.insert(listener.to_owned())),
        }
        port
    }

    /// An owner's listeners for which there was none.
    pub(super) fn refused<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a String> {
        self.refused.range(owner.to_owned()..).take_while(move |name| name.starts_with(owner))
    }

    /// Gives back the ports of an owner's listeners that are gone.
    pub(super) fn keep(&mut self, owner: &str, listeners: &[String]) {
        self.refused.retain(|name| !name.starts_with(owner));
        let of_owner = self.by_listener.range(owner.to_owned()..).take_while(|(name, _)| name.starts_with(owner));
        let gone: Vec<_> = of_owner.map(|(name, _)| name.clone()).filter(|name| !listeners.contains(name)).collect();
        for name in gone {
            if let Some(port) = self.by_listener.remove(&name) {
                self.taken.remove(&port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_listeners_share_a_port_and_each_keeps_its_own() {
        let mut ports = Ports::default();
        let names: Vec<_> = (0..COUNT).map(|n| format!("gateway/a/b/{n}")).collect();
        let mut given: Vec<_> = names.iter().filter_map(|name| ports.claim(name)).collect();
        assert_eq!(ports.claim("gateway/a/c/1"), None, "all are taken");
        assert_eq!(ports.refused("gateway/a/c/").collect::<Vec<_>>(), ["gateway/a/c/1"]);
        assert_eq!(ports.refused("gateway/a/b/").count(), 0);
        assert_eq!(names.iter().filter_map(|name| ports.claim(name)).collect::<Vec<_>>(), given);
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), usize::from(COUNT));
        ports.keep("gateway/a/b/", names.get(1..).unwrap_or_default());
        ports.keep("gateway/a/c/", &[]);
        assert_eq!(ports.claim("gateway/a/c/1").map(|port| given.contains(&port)), Some(true));
        assert_eq!(ports.refused("gateway/a/c/").count(), 0);
    }
}
