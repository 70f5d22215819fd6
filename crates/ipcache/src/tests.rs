// SPDX-License-Identifier: Apache-2.0
//! Several writers, one table, one kernel.

use super::*;
use abi::maps::Ipcache4;
use datapath::fake;
use model::IpSource;
use statedb::Writer;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

fn entry(address: &str, identity: u32) -> IpEntry {
    IpEntry {
        prefix: address.parse().unwrap(),
        identity: IdentityId(identity),
        tunnel: None,
        host: None,
        node_address: false,
        no_masquerade: false,
        source: IpSource::CustomResource,
        pod: None,
    }
}

fn identities(kernel: &fake::Kernel) -> BTreeMap<[u8; 4], u32> {
    let trie = kernel.trie::<Ipcache4>().unwrap();
    trie.entries().unwrap().into_iter().map(|(key, entry)| (key.data, entry.identity)).collect()
}

fn writers() -> ([Writer<IpEntry>; 2], Vec<Reader<IpEntry>>) {
    let ((first, a), (second, b)) = (statedb::table("first"), statedb::table("second"));
    ([first, second], vec![a, b])
}

fn run(kernel: &fake::Kernel, writers: Vec<Reader<IpEntry>>) -> (Tasks, Ipcache) {
    let tasks = Tasks::new(CancellationToken::new());
    let inputs = Inputs { kernel: Arc::new(kernel.clone()), epochs: Epochs::open(kernel).unwrap(), writers };
    let ipcache = start(inputs, &tasks).unwrap();
    (tasks, ipcache)
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_the_first_counts_until_it_has_nothing_more_to_say() {
    let (kernel, ([mut policy, mut mesh], tables)) = (fake::Kernel::new(), writers());
    let (_tasks, ipcache) = run(&kernel, tables);
    mesh.replace([entry("10.0.0.1/32", 700), entry("10.0.0.2/32", 701)]);
    mesh.mark_initialized();
    policy.insert(entry("10.0.0.1/32", 300));
    policy.mark_initialized();
    ipcache.attempted().await;
    assert_eq!(identities(&kernel), [([10, 0, 0, 1], 300), ([10, 0, 0, 2], 701)].into());
    policy.remove(&"10.0.0.1/32".parse().unwrap());
    policy.commit();
    ipcache.attempted().await;
    assert_eq!(identities(&kernel), [([10, 0, 0, 1], 700), ([10, 0, 0, 2], 701)].into());
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_had_is_known_and_stays_until_every_writer_is_complete() {
    let kernel = fake::Kernel::new();
    let ([mut policy, mut mesh], tables) = writers();
    let (tasks, ipcache) = run(&kernel, tables);
    policy.insert(entry("10.0.0.1/32", 300));
    policy.mark_initialized();
    mesh.insert(entry("10.0.0.2/32", 701));
    mesh.mark_initialized();
    ipcache.attempted().await;
    tasks.token().cancel();
    tasks.run_until_failure().await.unwrap();

    let ([mut policy, mut mesh], tables) = writers();
    let (_tasks, ipcache) = run(&kernel, tables);
    let known: Vec<_> = ipcache.restored.iter().map(|(_, identity)| identity.0).collect();
    assert_eq!(known, [300, 701]);
    policy.mark_initialized();
    ipcache.attempted().await;
    assert_eq!(identities(&kernel).len(), 2, "the other writer is still to speak");
    mesh.insert(entry("10.0.0.2/32", 701));
    mesh.mark_initialized();
    ipcache.status.pruned().await;
    assert_eq!(identities(&kernel), [([10, 0, 0, 2], 701)].into());
}
