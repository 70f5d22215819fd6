// SPDX-License-Identifier: Apache-2.0
//! What older builds have pinned: a map whose layout has changed since is made anew and filled from the older one.
//!
//! The older programs stay attached until each is replaced, and write into the older map until then. So it stays pinned, and what
//! they add is taken over as well, by [`Datapath::finish_migration`]. No failure in here keeps the agent from starting.

mod flows;

use std::error::Error as _;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use abi::config::NodeConfig;
use abi::endpoint::Endpoint;
use abi::flow::{Flow, FlowKey};
use abi::maps::{Endpoints, Flows, Node};
use abi::{MapDef, MapKind, packed, spine};

use super::load::Maps;
use super::map::KernelMap;
use super::pins::{Pins, failed, remove};
use super::{Datapath, event_rings};
use crate::flows::now;
use crate::map::raw::{RawMap, Typed, bytes_of};
use crate::{Error, MapSpec, Result, sys};

/// The flow table of version 1.
const FLOWS_1: MapSpec = MapSpec {
    name: Flows::NAME,
    version: 1,
    kind: MapKind::LruHash,
    key_size: size_of::<spine::FlowKey>(),
    value_size: size_of::<spine::FlowEntry>(),
    capacity: 0,
};

/// The flow table of version 2.
const FLOWS_2: MapSpec = MapSpec { version: 2, value_size: size_of::<packed::Flow>(), ..MapSpec::of::<Flows>() };

/// Facts of the node of version 1.
const NODE_1: MapSpec = MapSpec { version: 1, value_size: size_of::<spine::NodeConfig>(), ..MapSpec::of::<Node>() };

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Flows that have just been taken over.
    pub flows: usize,
    /// Nothing of an older build is left, in use or pinned.
    pub finished: bool,
}

/// Makes a map and pins it, or adopts the one that is pinned there, with its size. Says also whether the map holds what an older
/// build remembers up to now.
pub(super) fn create_or_adopt(pins: &Pins, spec: &MapSpec, entries: u32, maps: &Maps) -> Result<(KernelMap, bool)> {
    let path = pins.map(spec);
    let older = Older::newest(pins, spec)?;
    if let Some(map) = KernelMap::open(spec, &path)? {
        // One that was made later is the work of an older build that has run since: then this one tells of the time before.
        if older.as_ref().is_none_or(|older| older.id < map.id()) {
            return Ok((map, older.is_none()));
        }
        remove(&path)?;
    }
    let map = match spec.kind {
        MapKind::PerCpuRingBuf => event_rings::create(spec)?,
        _ => KernelMap::create(spec, entries, is_made_on_demand(spec))?,
    };
    let complete = older.is_none_or(|older| older.fill(spec, &map, maps));
    map.pin(&path)?;
    Ok((map, complete))
}

/// What user space alone writes need not be there in advance; the programs never wait for memory.
fn is_made_on_demand(spec: &MapSpec) -> bool {
    matches!(spec.kind, MapKind::Hash | MapKind::LpmTrie | MapKind::SkStorage) && spec.name != Flows::NAME
}

/// A map of an older layout, and its pin.
struct Older {
    path: PathBuf,
    version: u32,
    id: u32,
}

impl Older {
    /// All that are pinned of that map, the newest first.
    fn all(pins: &Pins, spec: &MapSpec) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for version in (1..spec.version).rev() {
            let path = pins.map(&MapSpec { version, ..*spec });
            let Some(fd) = sys::open_pin(&path).map_err(|source| failed("open", &path, source))? else { continue };
            let info = sys::map_info(fd.as_fd()).map_err(|source| failed("inspect", &path, source))?;
            found.push(Self { path, version, id: info.id });
        }
        Ok(found)
    }

    fn newest(pins: &Pins, spec: &MapSpec) -> Result<Option<Self>> {
        Ok(Self::all(pins, spec)?.into_iter().next())
    }

    /// Fills the new map as far as it is worth it. False when that failed.
    fn fill(&self, spec: &MapSpec, new: &KernelMap, maps: &Maps) -> bool {
        let map = spec.name;
        let filled = match map {
            Flows::NAME => self.take_over(new, maps, 0),
            Node::NAME => self.node(new),
            // Fragments are whole again within seconds, and who reads events reads the older ring, too.
            _ => Ok(0),
        };
        match &filled {
            Ok(entries) => tracing::info!(map, entries, "migrated flows from an older build"),
            Err(error) => tracing::warn!(
                map,
                %error,
                cause = error.source(),
                "what an older build remembered is not taken over, or in part: flows are decided anew with their next packet, \
                 and connections that are masqueraded or to a service may break"
            ),
        }
        filled.is_ok()
    }

    /// Adds the flows that were made at tick `since` or later and are not there yet. Returns how many.
    fn take_over(&self, new: &KernelMap, maps: &Maps, since: u32) -> Result<usize> {
        let spec = if self.version == FLOWS_1.version { FLOWS_1 } else { FLOWS_2 };
        let Some(map) = KernelMap::open(&spec, &self.path)?.map(Arc::new) else { return Ok(0) };
        if self.version == FLOWS_1.version {
            take_over(&Typed::new(spec, map), new, maps, since)
        } else {
            unpack(&Typed::new(spec, map), new, since)
        }
    }

    /// The agent writes these facts at once; until then the programs need some.
    fn node(&self, new: &KernelMap) -> Result<usize> {
        let Some(old) = KernelMap::open(&NODE_1, &self.path)? else { return Ok(0) };
        let old = Typed::<u32, spine::NodeConfig>::new(NODE_1, Arc::new(old)).get(&0)?.unwrap_or_default();
        let source = |source| Error::Map { map: Node::NAME, operation: "update", source };
        new.update(bytes_of(&0_u32), bytes_of(&node_of(&old))).map_err(source)?;
        Ok(1)
    }
}

type OldFlows = Typed<spine::FlowKey, spine::FlowEntry>;

fn node_of(old: &spine::NodeConfig) -> NodeConfig {
    NodeConfig {
        masquerade_ipv4: old.masquerade_ipv4,
        masquerade_ipv6: old.masquerade_ipv6,
        tunnel_ipv4: old.masquerade_ipv4,
        tunnel_ipv6: old.masquerade_ipv6,
        overlay_ifindex: old.overlay_ifindex,
        native_ifindex: old.native_ifindex,
        node_identity: old.node_identity,
        host_ifindex: old.host_ifindex,
        native_mac: old.native_mac,
        ..NodeConfig::default()
    }
}

/// The same for a table of version 1.
fn take_over(old: &OldFlows, new: &KernelMap, maps: &Maps, since: u32) -> Result<usize> {
    let pods =
        maps.get(Endpoints::NAME).map(|map| Typed::new(MapSpec::of::<Endpoints>(), Arc::<KernelMap>::clone(map)));
    let pod = |ifindex: u32| -> Result<Option<Endpoint>> { pods.as_ref().map_or(Ok(None), |pods| pods.get(&ifindex)) };
    let (mut taken, now) = (0, now());
    old.visit(|key, forward| {
        // A reply whose forward direction has gone says neither where the flow's packets came from nor which backend it has: the
        // older programs too would have decided its next packet as the first of a flow. 0 is a port that was only being reserved.
        if forward.flags & spine::flags::REPLY != 0 || forward.created == 0 || forward.created < since {
            return Ok(());
        }
        let reply = old.get(&spine::opposite(key, forward))?.filter(|entry| entry.flags & spine::flags::REPLY != 0);
        let reply = match reply {
            Some(reply) => Some(reply),
            None => flows::reply_of(key, forward, pod(forward.in_ifindex)?.as_ref()),
        };
        if let Some((key, flow)) = reply.and_then(|reply| flows::convert(key, forward, &reply))
            && !flow.is_garbage(key.proto, now)
        {
            taken += usize::from(add(new, &key, &flow)?);
        }
        Ok(())
    })?;
    Ok(taken)
}

/// The same for a table of version 2. Aliases are made anew with their records.
fn unpack(old: &Typed<FlowKey, packed::Flow>, new: &KernelMap, since: u32) -> Result<usize> {
    let (mut taken, now) = (0, now());
    old.visit(|key, flow| {
        let flow = Flow::from(*flow);
        if key.alias == 0 && flow.created >= since && !flow.is_garbage(key.proto, now) {
            taken += usize::from(add(new, key, &flow)?);
        }
        Ok(())
    })?;
    Ok(taken)
}

/// Adds a record with its alias, unless there is one or its replies belong to another.
fn add(new: &KernelMap, key: &FlowKey, flow: &Flow) -> Result<bool> {
    let failed = |source: std::io::Error| match source.raw_os_error() {
        Some(libc::E2BIG) => Error::MapFull { map: Flows::NAME, entries: new.capacity() },
        _ => Error::Map { map: Flows::NAME, operation: "update", source },
    };
    if new.lookup(bytes_of(key), &mut [0; size_of::<Flow>()]).map_err(failed)? {
        return Ok(false);
    }
    let answer = flow.answer(key);
    // What is translated into itself is found under its own key.
    if flow.is_translated() && answer.key().0 != *key {
        // First, since it is what reserves the port.
        let (alias_key, alias) = Flow::alias(key, &answer);
        if !new.insert_new(bytes_of(&alias_key), bytes_of(&alias)).map_err(failed)? {
            return Ok(false);
        }
    }
    new.insert_new(bytes_of(key), bytes_of(flow)).map_err(failed)
}

impl Datapath {
    /// Takes over the flows that programs of an older build have added since this one was loaded. Once none of these programs is
    /// left, removes what that build has pinned. To be called until it is finished.
    ///
    /// # Errors
    ///
    /// The table cannot be read, or has no room; or the kernel does not tell which programs it has.
    pub fn finish_migration(&self) -> Result<Migration> {
        let mut older = Vec::new();
        for spec in MapSpec::all() {
            older.extend(Older::all(&self.pins, &spec)?.into_iter().map(|map| (spec.name, map)));
        }
        if older.is_empty() {
            return Ok(Migration { flows: 0, finished: true });
        }
        // Asked before the last look, so that nothing is added after it.
        let ids: Vec<u32> = older.iter().map(|(_, map)| map.id).collect();
        let used = sys::users::is_any_used(&ids).map_err(|source| Error::Programs { source })?;
        let taken = self.take_over_again(&older);
        if !used {
            // Also when that failed, since it would fail again.
            for (_, map) in &older {
                remove(&map.path)?;
            }
        }
        Ok(Migration { flows: taken?, finished: !used })
    }

    fn take_over_again(&self, older: &[(&'static str, Older)]) -> Result<usize> {
        let mut taken = 0;
        for (name, map) in older.iter().filter(|(name, _)| *name == Flows::NAME) {
            if let Some(new) = self.maps.get(name) {
                taken += map.take_over(new, &self.maps, self.complete_until)?;
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use abi::Addr;

    use super::*;

    #[test]
    fn the_node_keeps_its_facts_and_its_tunnel_the_address_that_it_has() {
        let old = spine::NodeConfig {
            masquerade_ipv4: Addr::from_v4_be(1),
            masquerade_ipv6: Addr { hi: 2, lo: 2 },
            overlay_ifindex: 3,
            native_ifindex: 4,
            node_identity: 5,
            host_ifindex: 6,
            native_mac: [7; 6],
            pad: [0; 10],
        };
        let new = node_of(&old);
        assert_eq!((new.masquerade_ipv4, new.masquerade_ipv6), (old.masquerade_ipv4, old.masquerade_ipv6));
        assert_eq!((new.tunnel_ipv4, new.tunnel_ipv6), (old.masquerade_ipv4, old.masquerade_ipv6));
        assert_eq!((new.overlay_ifindex, new.native_ifindex, new.node_identity, new.host_ifindex), (3, 4, 5, 6));
        assert_eq!(new.native_mac, [7; 6]);
    }

    #[test]
    fn only_what_the_programs_write_is_allocated_in_advance() {
        assert!(!is_made_on_demand(&MapSpec::of::<Flows>()));
        assert!(!is_made_on_demand(&MapSpec::of::<abi::maps::Fragments>()));
        assert!(is_made_on_demand(&MapSpec::of::<Endpoints>()));
        assert!(is_made_on_demand(&MapSpec::of::<abi::maps::Policies>()));
    }
}
