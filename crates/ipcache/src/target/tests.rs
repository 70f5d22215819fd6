// SPDX-License-Identifier: Apache-2.0
//! The target against a kernel in memory, also one that fails.

use super::*;
use datapath::fake;
use model::IpSource;
use std::net::IpAddr;

fn entry(prefix: &str, identity: u32, tunnel: Option<&str>) -> IpEntry {
    IpEntry {
        prefix: prefix.parse().unwrap(),
        identity: IdentityId(identity),
        tunnel: tunnel.map(|ip| ip.parse::<IpAddr>().unwrap()),
        host: None,
        node_address: false,
        no_masquerade: false,
        source: IpSource::Generated,
        pod: None,
    }
}

struct Fixture {
    kernel: fake::Kernel,
    epochs: Epochs,
    target: IpcacheTarget,
}

fn fixture() -> Fixture {
    let kernel = fake::Kernel::new();
    let epochs = Epochs::open(&kernel).unwrap();
    let target = IpcacheTarget::open(&kernel, epochs.clone()).unwrap();
    Fixture { kernel, epochs, target }
}

impl Fixture {
    /// Which epochs rise by it: of the address, and of the node.
    async fn update(&mut self, row: &IpEntry) -> (u32, u32) {
        let before = self.raised(row);
        self.target.update(row).await.unwrap();
        let after = self.raised(row);
        (after.0 - before.0, after.1 - before.1)
    }

    fn raised(&self, row: &IpEntry) -> (u32, u32) {
        (self.epochs.peer(row.prefix.addr()).unwrap(), self.epochs.node().unwrap())
    }
}

const NONE: (u32, u32) = (0, 0);
const ADDRESS: (u32, u32) = (1, 0);
const NODE: (u32, u32) = (0, 1);

#[tokio::test]
async fn the_epoch_of_an_address_rises_only_when_that_changes_what_it_is() {
    let mut f = fixture();
    f.update(&entry("0.0.0.0/0", 9, None)).await;
    assert_eq!(f.update(&entry("0.0.0.0/0", 9, None)).await, NONE, "the same again");
    assert_eq!(f.update(&entry("10.0.1.5/32", 300, Some("192.168.77.11"))).await, ADDRESS, "it was the world");
    assert_eq!(f.update(&entry("10.0.1.5/32", 300, Some("192.168.77.11"))).await, NONE, "the same again");
    assert_eq!(f.update(&entry("10.0.1.5/32", 300, Some("192.168.77.12"))).await, ADDRESS, "behind another node");
    assert_eq!(f.update(&entry("10.0.1.5/32", 301, Some("192.168.77.12"))).await, ADDRESS, "another identity");
    assert_eq!(f.update(&entry("8.8.8.0/24", 9, None)).await, NONE, "a part that is as the whole");
    assert_eq!(f.update(&entry("8.8.8.0/24", 10, None)).await, NODE, "many addresses at once");
    let gone = entry("10.0.1.5/32", 301, None);
    let before = f.raised(&gone);
    f.target.delete(&"10.0.1.5/32".parse().unwrap()).await.unwrap();
    f.target.delete(&"10.0.1.5/32".parse().unwrap()).await.unwrap();
    assert_eq!(f.raised(&gone), (before.0 + 1, before.1), "gone, once");
}

fn of_kernel(f: &Fixture, address: [u8; 4]) -> IpcacheEntry {
    f.kernel.trie::<Ipcache4>().unwrap().lookup(&address).unwrap().unwrap()
}

#[tokio::test]
async fn the_kernel_knows_the_addresses_of_nodes_and_by_which_other_one_they_are_tunnelled_to() {
    let mut f = fixture();
    f.update(&entry("0.0.0.0/0", 9, None)).await;
    let known = IpEntry { node_address: true, ..entry("192.168.77.12/32", 6, None) };
    let other =
        IpEntry { node_address: true, no_masquerade: true, ..entry("203.0.113.12/32", 6, Some("192.168.77.12")) };
    f.update(&known).await;
    f.update(&other).await;
    f.update(&entry("10.0.2.1/32", 6, Some("192.168.77.12"))).await;
    let tunnel = Addr::from("192.168.77.12".parse::<IpAddr>().unwrap());
    let flags_and_tunnel = |address| {
        let entry = of_kernel(&f, address);
        (entry.flags, entry.tunnel)
    };
    assert_eq!(flags_and_tunnel([192, 168, 77, 12]), (flags::NODE, Addr::NONE));
    assert_eq!(flags_and_tunnel([203, 0, 113, 12]), (flags::NODE | flags::NO_MASQUERADE, tunnel));
    assert_eq!(flags_and_tunnel([10, 0, 2, 1]), (0, tunnel), "the router is reached through the tunnel");
}

#[tokio::test]
async fn entries_of_an_older_agent_become_those_of_nodes_one_address_at_a_time() {
    let mut f = fixture();
    f.update(&entry("0.0.0.0/0", 9, None)).await;
    f.update(&entry("192.168.77.12/32", 6, None)).await;
    f.target = IpcacheTarget::open(&f.kernel, f.epochs.clone()).unwrap();
    let now = IpEntry { node_address: true, ..entry("192.168.77.12/32", 6, None) };
    assert_eq!(f.update(&now).await, ADDRESS, "and no other flow is decided anew");
    assert_eq!(of_kernel(&f, [192, 168, 77, 12]).flags, flags::NODE);
    assert_eq!(f.update(&now).await, NONE, "the same again");
}

#[tokio::test]
async fn a_restart_finds_what_is_right_and_removes_only_the_rest() {
    let mut f = fixture();
    for row in [entry("0.0.0.0/0", 9, None), entry("10.0.0.0/8", 16_777_217, None), entry("fd00::5/128", 300, None)] {
        f.update(&row).await;
    }
    let mut second = IpcacheTarget::open(&f.kernel, f.epochs.clone()).unwrap();
    let known = [("0.0.0.0/0", 9), ("10.0.0.0/8", 16_777_217), ("fd00::5/128", 300)];
    assert_eq!(second.identities(), known.map(|(prefix, id)| (prefix.parse().unwrap(), IdentityId(id))));
    let (mut writer, reader) = statedb::table::<IpEntry>("ipcache");
    writer.replace([entry("0.0.0.0/0", 9, None), entry("fd00::5/128", 300, None)]);
    writer.commit();
    let before = f.epochs.node().unwrap();
    for row in reader.snapshot().iter() {
        second.update(row).await.unwrap();
    }
    assert_eq!(f.epochs.node().unwrap(), before);
    second.prune(&reader.snapshot()).await.unwrap();
    assert_eq!(f.epochs.node().unwrap(), before + 1);
    assert_eq!(f.kernel.trie::<Ipcache4>().unwrap().entries().unwrap().len(), 1);
    assert_eq!(
        f.kernel
            .trie::<Ipcache6>()
            .unwrap()
            .lookup(&"fd00::5".parse::<std::net::Ipv6Addr>().unwrap().octets())
            .unwrap()
            .unwrap()
            .identity,
        300
    );
}

#[tokio::test]
async fn a_kernel_that_fails_now_and_then_gets_every_entry_and_the_epoch_rises_all_the_same() {
    let kernel = fake::Kernel::new();
    let chaotic = fake::chaos(kernel.clone(), 0.4, 7);
    let epochs = Epochs::open(&chaotic).unwrap();
    let mut target = (0..100).find_map(|_| IpcacheTarget::open(&chaotic, epochs.clone()).ok()).unwrap();
    let map = kernel.trie::<Ipcache4>().unwrap();
    for number in 0..50u8 {
        let quiet = Epochs::open(&kernel).unwrap();
        let before = quiet.peer(std::net::IpAddr::from([10, 0, 0, number])).unwrap();
        let row = entry(&format!("10.0.0.{number}/32"), 300, None);
        let mut attempts = 0;
        while target.update(&row).await.is_err() {
            attempts += 1;
            assert!(attempts < 1000);
        }
        assert_eq!(map.lookup(&[10, 0, 0, number]).unwrap().unwrap().identity, 300);
        assert!(quiet.peer(row.prefix.addr()).unwrap() > before);
    }
}

#[tokio::test]
async fn of_many_entries_those_that_failed_are_named_and_no_epoch_is_forgotten() {
    for seed in 0..20 {
        let kernel = fake::Kernel::new();
        let chaos = fake::chaos(kernel.clone(), 0.2, seed);
        let epochs = Epochs::open(&kernel).unwrap();
        let failing_epochs = (0..100).find_map(|_| Epochs::open(&chaos).ok()).unwrap();
        let mut target = (0..100).find_map(|_| IpcacheTarget::open(&chaos, failing_epochs.clone()).ok()).unwrap();
        let rows: Vec<_> = (0..150_u8).map(|n| entry(&format!("10.0.0.{n}/32"), 300, None)).collect();
        let mut operations: Vec<_> = rows.iter().map(|row| Operation::Update(row.clone().into())).collect();
        let mut calls = 0;
        while !operations.is_empty() {
            let failures = target.apply(&operations).await;
            let failed = |operation: &Operation<IpEntry>| failures.iter().any(|(key, _)| *key == operation.key());
            operations.retain(failed);
            calls += 1;
        }
        assert!(calls > 1, "nothing failed");
        assert_eq!(kernel.trie::<Ipcache4>().unwrap().entries().unwrap().len(), rows.len());
        assert!(rows.iter().all(|row| epochs.peer(row.prefix.addr()).unwrap() > 0));
    }
}

#[tokio::test]
async fn many_prefixes_raise_the_nodes_epoch_once() {
    let mut f = fixture();
    let operations: Vec<_> =
        (0..50_u8).map(|n| Operation::Update(entry(&format!("10.{n}.0.0/16"), 300, None).into())).collect();
    let before = f.epochs.node().unwrap();
    assert!(f.target.apply(&operations).await.is_empty());
    assert_eq!(f.epochs.node().unwrap() - before, 1);
}
