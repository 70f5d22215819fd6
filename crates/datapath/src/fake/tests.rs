// SPDX-License-Identifier: Apache-2.0
//! What holds for maps in memory, and through them for the typed layer above any map.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use abi::ipcache::IpcacheEntry;
use abi::maps::{Backends, Ipcache4, Metrics, Node, ReverseSockets};
use abi::metrics::MetricsValue;

use super::{Kernel, chaos};
use crate::{Diff, Error, Kernel as _, LpmKey, Map, sync_map};

fn backend(port: u16) -> abi::lb::Backend {
    abi::lb::Backend { port, ..Default::default() }
}

fn identity(identity: u32) -> IpcacheEntry {
    IpcacheEntry { identity, ..Default::default() }
}

#[test]
fn an_entry_is_there_until_it_is_removed() {
    let map = Kernel::new().map::<Backends>().unwrap();
    assert_eq!(map.get(&1).unwrap(), None);
    map.insert(&1, &backend(80)).unwrap();
    assert_eq!(map.get(&1).unwrap(), Some(backend(80)));
    assert_eq!(map.entries().unwrap(), [(1, backend(80))]);
    assert!(map.remove(&1).unwrap());
    assert!(!map.remove(&1).unwrap());
    assert!(map.keys().unwrap().is_empty());
}

#[test]
fn a_clone_of_the_kernel_sees_the_same_maps() {
    let kernel = Kernel::new();
    let erased: Arc<dyn crate::Kernel> = Arc::new(kernel.clone());
    erased.map::<Backends>().unwrap().insert(&1, &backend(80)).unwrap();
    assert_eq!(kernel.map::<Backends>().unwrap().get(&1).unwrap(), Some(backend(80)));
}

#[test]
fn a_full_map_says_its_name_and_size_but_still_takes_updates() {
    let map = Kernel::new().with_capacity("cilium_lb_backends", 1).map::<Backends>().unwrap();
    map.insert(&1, &backend(80)).unwrap();
    map.insert(&1, &backend(81)).unwrap();
    let error = map.insert(&2, &backend(82)).unwrap_err();
    assert_eq!(error.to_string(), "map cilium_lb_backends is full (1 entries)");
}

#[test]
fn a_full_lru_map_makes_room() {
    let map = Kernel::new().with_capacity("cilium_lb_reverse_sk", 2).map::<ReverseSockets>().unwrap();
    for cookie in 0..5 {
        map.insert(&abi::lb::ReverseKey { cookie, ..Default::default() }, &Default::default()).unwrap();
    }
    assert_eq!(map.keys().unwrap().len(), 2);
}

#[test]
fn an_array_has_all_its_entries_and_no_more() {
    let map = Kernel::new().map::<Node>().unwrap();
    assert_eq!(map.get(&0).unwrap(), Some(Default::default()));
    assert_eq!(map.get(&1).unwrap(), None);
    assert_eq!(map.entries().unwrap().len(), 1);
    assert!(matches!(map.insert(&1, &Default::default()), Err(Error::NoSuchIndex { map: "cilium_node", .. })));
    assert!(map.remove(&0).is_err());
}

#[test]
fn the_longest_prefix_wins() {
    let trie = Kernel::new().trie::<Ipcache4>().unwrap();
    for (len, addr, id) in
        [(0, [0, 0, 0, 0], 2), (8, [10, 0, 0, 0], 100), (20, [10, 1, 16, 0], 200), (32, [10, 1, 16, 9], 300)]
    {
        trie.insert(&LpmKey::new(len, addr), &identity(id)).unwrap();
    }
    for (addr, id) in [([10, 1, 16, 9], 300), ([10, 1, 31, 255], 200), ([10, 1, 32, 0], 100), ([11, 0, 0, 0], 2)] {
        assert_eq!(trie.lookup(&addr).unwrap(), Some(identity(id)), "{addr:?}");
    }
    assert!(trie.remove(&LpmKey::new(0, [9, 9, 9, 9])).unwrap(), "bits beyond the prefix do not count");
    assert_eq!(trie.lookup(&[11, 0, 0, 0]).unwrap(), None);
    assert!(trie.insert(&LpmKey::new(33, [0; 4]), &identity(1)).is_err(), "longer than the address");
}

#[test]
fn counters_are_summed() {
    let map = Kernel::new().per_cpu::<Metrics>().unwrap();
    let slot = abi::metrics::slot(133, abi::policy::INGRESS);
    let value = MetricsValue { packets: 3, bytes: 180 };
    map.insert(&slot, &value).unwrap();
    assert_eq!(map.get(&slot).unwrap(), Some(value));
    let counted: Vec<_> = map.entries().unwrap().into_iter().filter(|(_, value)| value.packets > 0).collect();
    assert_eq!(counted, [(slot, value)]);
}

#[test]
fn a_sync_touches_only_what_differs() {
    let map = Kernel::new().map::<Backends>().unwrap();
    for id in 1..=3 {
        map.insert(&id, &backend(80)).unwrap();
    }
    let desired = [(1, backend(80)), (2, backend(81)), (4, backend(80))];
    assert_eq!(sync_map(&map, desired).unwrap(), Diff { inserted: 1, updated: 1, removed: 1, unchanged: 1 });
    assert_eq!(map.entries().unwrap(), desired);
    assert!(!sync_map(&map, desired).unwrap().is_change());
}

#[test]
fn a_sync_of_a_full_map_makes_room_first() {
    let map = Kernel::new().with_capacity("cilium_lb_backends", 2).map::<Backends>().unwrap();
    sync_map(&map, [(1, backend(1)), (2, backend(2))]).unwrap();
    assert_eq!(sync_map(&map, [(3, backend(3)), (4, backend(4))]).unwrap().inserted, 2);
    assert!(matches!(sync_map(&map, (1..=3).map(|id| (id, backend(id as u16)))), Err(Error::MapFull { .. })));
}

#[test]
fn a_sync_of_a_trie_keeps_prefixes_of_equal_address_apart() {
    let trie = Kernel::new().trie::<Ipcache4>().unwrap();
    let desired = [(LpmKey::new(8, [10, 0, 0, 0]), identity(1)), (LpmKey::new(32, [10, 0, 0, 0]), identity(2))];
    assert_eq!(sync_map(&trie, desired).unwrap().inserted, 2);
    assert_eq!(sync_map(&trie, desired).unwrap(), Diff { unchanged: 2, ..Diff::default() });
}

#[test]
fn repeating_a_failed_sync_ends_in_the_desired_state() {
    let kernel = Kernel::new();
    let failing: Map<Backends> = chaos(kernel.clone(), 0.3, 42).map().unwrap();
    let desired: Vec<_> = (0..50).map(|id| (id, backend(id as u16))).collect();
    let failures = (0..1000).take_while(|_| sync_map(&failing, desired.iter().copied()).is_err()).count();
    assert!(failures > 0 && failures < 1000, "{failures}");
    assert_eq!(kernel.map::<Backends>().unwrap().entries().unwrap().len(), 50);
}

#[test]
fn chaos_without_probability_is_the_kernel_itself() {
    let map: Map<Backends> = chaos(Kernel::new(), 0.0, 1).map().unwrap();
    (0..100).for_each(|id| map.insert(&id, &backend(1)).unwrap());
    let never: Map<Backends> = chaos(Kernel::new(), 1.0, 1).map().unwrap();
    assert!(never.get(&1).is_err());
}
