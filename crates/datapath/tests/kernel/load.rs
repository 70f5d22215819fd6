// SPDX-License-Identifier: Apache-2.0
//! Loading, adopting, and reading maps of the kernel.

use std::collections::BTreeSet;

use abi::config::ProgramConfig;
use abi::maps::{Backends, Facts, Flows, Ipcache4, Metrics, Node, Openings};
use abi::rings;
use datapath::bpf::{Datapath, Features, Options, Pinned};
use datapath::{Kernel, LpmKey, sync_map};

use crate::sandbox::{Sandbox, chain, version};

/// The line of a file below `/proc` that opens with that word, without it.
fn line(file: &str, word: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().find_map(|line| line.strip_prefix(word)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_limit_of_locked_memory_is_lifted_where_that_is_allowed() {
    const SYS_RESOURCE: u32 = 24;
    Sandbox::run(|sandbox| {
        let limit = || line("/proc/self/limits", "Max locked memory");
        let capabilities = u64::from_str_radix(&line("/proc/thread-self/status", "CapEff:"), 16).unwrap();
        let allowed = capabilities >> SYS_RESOURCE & 1 == 1;
        let expected = if allowed { "unlimited unlimited bytes".to_owned() } else { limit() };
        drop(sandbox.load());
        assert_eq!(limit(), expected);
    });
}

#[test]
fn a_helper_that_this_version_has_is_found() {
    let features = Features::of_this_kernel();
    // Older kernels of some distributions have them too.
    assert!(features.coarse_clock || version() < (5, 11));
    assert!(features.set_retval || version() < (6, 1));
}

#[test]
fn a_second_agent_finds_the_entries_of_the_first() {
    Sandbox::run(|sandbox| {
        let first = sandbox.load_with(Options { flows: 1024, ..Options::default() });
        first.map::<Backends>().unwrap().insert(&1, &Default::default()).unwrap();
        drop(first);
        let second = sandbox.load();
        assert_eq!(second.map::<Backends>().unwrap().keys().unwrap(), [1]);
        assert_eq!(second.map::<Flows>().unwrap().capacity(), 1024, "the size of an adopted table stays");
    });
}

#[test]
fn the_rings_fit_the_table_that_there_is_and_the_programs_know_how_long_they_are() {
    Sandbox::run(|sandbox| {
        let wrong = ProgramConfig { openings: 7, ..ProgramConfig::default() };
        let options = |flows| Options { flows, config: wrong, ..Options::default() };
        let rings = |datapath: &Datapath| {
            let capacity = datapath.map::<Openings>().unwrap().capacity();
            (capacity, datapath.config().openings)
        };
        assert_eq!(rings(&sandbox.load_with(options(65536))), (rings::RINGS_AND_STACK * 256, 256));
        assert_eq!(rings(&sandbox.load_with(options(1 << 20))), (rings::RINGS_AND_STACK * 256, 256), "adopted");
        std::fs::remove_file(sandbox.pin("maps/cilium_openings_v3")).unwrap();
        assert_eq!(
            rings(&sandbox.load_with(options(1 << 20))),
            (rings::RINGS_AND_STACK * 256, 256),
            "by the adopted flows"
        );
    });
}

#[test]
fn each_layout_of_a_map_has_a_pin_of_its_own() {
    Sandbox::run(|sandbox| {
        drop(sandbox.load());
        let pin_of = |map: &Facts| match map.version {
            1 => map.name.to_owned(),
            version => format!("{}_v{version}", map.name),
        };
        let pins = std::fs::read_dir(sandbox.pin("maps")).unwrap();
        let pins: BTreeSet<_> = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(pins, abi::maps::ALL.iter().map(pin_of).collect());
    });
}

#[test]
fn a_tool_reads_pinned_maps_without_loading_anything() {
    Sandbox::run(|sandbox| {
        let tool = Pinned::open(&sandbox.bpffs);
        let error = tool.map::<Node>().unwrap_err().to_string();
        assert!(error.contains("cilium_node") && error.contains("agent"), "{error}");
        let datapath = sandbox.load();
        datapath
            .map::<Node>()
            .unwrap()
            .insert(&0, &abi::config::NodeConfig { node_identity: 6, ..Default::default() })
            .unwrap();
        assert_eq!(tool.map::<Node>().unwrap().get(&0).unwrap().unwrap().node_identity, 6);
    });
}

#[test]
fn a_map_pinned_by_another_build_is_refused() {
    Sandbox::run(|sandbox| {
        drop(sandbox.load());
        let (node, backends) = (sandbox.pin("maps/cilium_node_v2"), sandbox.pin("maps/cilium_lb_backends"));
        std::fs::remove_file(&node).unwrap();
        std::fs::rename(&backends, &node).unwrap();
        let options = Options { bpffs: sandbox.bpffs.clone(), ..Options::default() };
        let error = Datapath::load(&options).unwrap_err().to_string();
        assert!(error.contains("cilium_node_v2") && error.contains("map type 1, expected 2"), "{error}");
    });
}

#[test]
fn without_a_bpf_file_system_the_error_says_how_to_mount_it() {
    Sandbox::run(|_| {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { bpffs: folder.path().into(), ..Options::default() };
        let error = chain(&Datapath::load(&options).unwrap_err());
        assert!(error.contains("mount -t bpf bpf"), "{error}");
    });
}

#[test]
fn every_entry_of_a_big_map_is_listed_once() {
    Sandbox::run(|sandbox| {
        let datapath = sandbox.load();
        let map = datapath.map::<Backends>().unwrap();
        sync_map(&map, (0..20_000).map(|id| (id, Default::default()))).unwrap();
        let mut keys = map.keys().unwrap();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..20_000));
        assert_eq!(sync_map(&map, []).unwrap().removed, 20_000);
    });
}

#[test]
fn every_prefix_of_a_big_trie_is_listed_once() {
    Sandbox::run(|sandbox| {
        let trie = sandbox.load().trie::<Ipcache4>().unwrap();
        let prefix = |n: u32| LpmKey::new(16 + n % 17, (n << 16).to_be_bytes());
        sync_map(&trie, (0..10_000).map(|n| (prefix(n), Default::default()))).unwrap();
        let mut keys = trie.keys().unwrap();
        keys.sort_unstable();
        let mut wanted: Vec<_> = (0..10_000).map(prefix).collect();
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
    });
}

#[test]
fn a_trie_of_the_kernel_does_what_the_fake_does() {
    Sandbox::run(|sandbox| {
        let real: std::sync::Arc<dyn Kernel> = std::sync::Arc::new(sandbox.load());
        let fake: std::sync::Arc<dyn Kernel> = std::sync::Arc::new(datapath::fake::Kernel::new());
        for kernel in [real, fake] {
            let trie = kernel.trie::<Ipcache4>().unwrap();
            let entry = |identity| abi::ipcache::IpcacheEntry { identity, ..Default::default() };
            let desired = [
                (LpmKey::new(0, [0; 4]), entry(2)),
                (LpmKey::new(9, [10, 255, 0, 1]), entry(3)),
                (LpmKey::new(32, [10, 128, 0, 0]), entry(4)),
            ];
            assert_eq!(sync_map(&trie, desired).unwrap().inserted, 3);
            assert_eq!(trie.lookup(&[10, 129, 0, 0]).unwrap(), Some(entry(3)));
            assert_eq!(trie.lookup(&[10, 127, 0, 0]).unwrap(), Some(entry(2)));
            assert!(trie.remove(&LpmKey::new(9, [10, 128, 0, 0])).unwrap());
            assert!(!trie.remove(&LpmKey::new(9, [10, 128, 0, 0])).unwrap());
            assert_eq!(trie.entries().unwrap().len(), 2);
            assert!(trie.insert(&LpmKey::new(33, [0; 4]), &entry(1)).is_err());
        }
    });
}

#[test]
fn counters_of_all_processors_are_summed() {
    Sandbox::run(|sandbox| {
        let map = sandbox.load().per_cpu::<Metrics>().unwrap();
        let value = abi::metrics::MetricsValue { packets: 2, bytes: 120 };
        map.insert(&5, &value).unwrap();
        assert_eq!(map.get(&5).unwrap(), Some(value));
        assert!(map.get_each(&5).unwrap().unwrap().len() >= std::thread::available_parallelism().unwrap().get());
        assert_eq!(map.entries().unwrap().iter().map(|(_, value)| value.packets).sum::<u64>(), 2);
    });
}
