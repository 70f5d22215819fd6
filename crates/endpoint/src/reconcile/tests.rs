// SPDX-License-Identifier: Apache-2.0
//! Attachments against a kernel in memory, also one that fails on purpose.

use super::*;
use crate::attachment::{self, Permission};
use crate::testing::fakes::FakeInterfaces;
use crate::testing::{endpoint, local_node, policy};
use datapath::fake;
use model::{Endpoint, EndpointPolicy, IdentityId, PolicyId};
use statedb::{Target as _, Tasks, Writer};
use std::sync::Arc;
use std::time::Duration;

fn pod(id: u16) -> PodAttachment {
    let (node, policy) = (local_node(), policy(id));
    PodAttachment {
        endpoint: Arc::new(endpoint(id)),
        permission: Some(Permission::from(&policy)),
        router_ipv4: node.router_ipv4,
        router_ipv6: node.router_ipv6,
    }
}

fn target(kernel: &impl Kernel) -> (Target<FakeInterfaces>, FakeInterfaces, Epochs) {
    let interfaces = FakeInterfaces::default();
    let epochs = Epochs::open(kernel).unwrap();
    (Target::new(Maps::open(kernel).unwrap(), epochs.clone(), interfaces.clone()), interfaces, epochs)
}

fn snapshot(rows: Vec<Attachment>) -> Snapshot<Attachment> {
    let (mut writer, _) = statedb::table("attachments");
    writer.replace(rows);
    writer.mark_initialized();
    writer.snapshot()
}

/// The epoch of a pod's address.
fn raised(epochs: &Epochs, id: u16) -> u32 {
    epochs.peer(endpoint(id).ipv4.unwrap()).unwrap()
}

fn locals(kernel: &fake::Kernel) -> usize {
    kernel.map::<maps::Locals>().unwrap().entries().unwrap().len()
}

#[tokio::test]
async fn a_pods_entries_are_there_before_its_interface_comes_up() {
    let kernel = fake::Kernel::new();
    let (mut target, interfaces, epochs) = target(&kernel);
    interfaces.0.lock().kernel = Some(kernel.clone());
    target.update(&Attachment::Pod(pod(1))).await.unwrap();
    assert_eq!(interfaces.0.lock().entries_first, [true]);
    assert_eq!(locals(&kernel), 2);
    assert_eq!((epochs.node().unwrap(), epochs.endpoint(1).unwrap()), (0, 0), "nobody else is concerned");
    assert!(raised(&epochs, 1) > 0, "flows to the address were decided for the world");
}

#[tokio::test]
async fn a_restart_finds_everything_in_order_and_writes_nothing() {
    let kernel = fake::Kernel::new();
    let rows = vec![Attachment::Host("192.168.0.1".parse().unwrap()), Attachment::Pod(pod(1))];
    let (mut before, ..) = target(&kernel);
    for row in &rows {
        before.update(row).await.unwrap();
    }
    // A map that has no room for another entry refuses every write that is not one of what is there.
    let (mut after, _, epochs) = target(&kernel);
    let raised = epochs.generation().unwrap();
    let entries = |k: &fake::Kernel| k.map::<maps::Locals>().unwrap().entries().unwrap();
    let held = entries(&kernel);
    for row in &rows {
        after.update(row).await.unwrap();
    }
    after.prune(&snapshot(rows)).await.unwrap();
    assert_eq!(entries(&kernel), held);
    assert_eq!(epochs.generation().unwrap(), raised);
}

#[tokio::test]
async fn a_pod_that_goes_takes_its_entries_along_and_raises_its_own_epochs() {
    let kernel = fake::Kernel::new();
    let (mut target, interfaces, epochs) = target(&kernel);
    for id in [1, 2] {
        target.update(&Attachment::Pod(pod(id))).await.unwrap();
    }
    let before = [raised(&epochs, 1), raised(&epochs, 2)];
    target.delete(&AttachmentKey::Pod(EndpointId(1))).await.unwrap();
    target.delete(&AttachmentKey::Pod(EndpointId(1))).await.unwrap();
    assert_eq!(interfaces.0.lock().up.keys().collect::<Vec<_>>(), [&endpoint(2).host_interface]);
    assert_eq!(locals(&kernel), 2);
    assert_eq!(kernel.map::<maps::Endpoints>().unwrap().keys().unwrap(), [102]);
    assert_eq!([raised(&epochs, 1), raised(&epochs, 2)], [before[0] + 1, before[1]]);
    assert!(epochs.endpoint(1).unwrap() > 0, "its id may be given again");
    assert_eq!((epochs.endpoint(2).unwrap(), epochs.node().unwrap()), (0, 0));
}

#[tokio::test]
async fn an_address_that_another_pod_took_over_is_not_removed_with_the_first() {
    let kernel = fake::Kernel::new();
    let (mut target, _, epochs) = target(&kernel);
    target.update(&Attachment::Pod(pod(1))).await.unwrap();
    let heir = Endpoint { ipv4: endpoint(1).ipv4, ipv6: endpoint(1).ipv6, ..endpoint(2) };
    target.update(&Attachment::Pod(PodAttachment { endpoint: Arc::new(heir), ..pod(2) })).await.unwrap();
    assert!(epochs.endpoint(1).unwrap() > 0, "flows to the first must not reach the second by themselves");
    target.delete(&AttachmentKey::Pod(EndpointId(1))).await.unwrap();
    let entries = kernel.map::<maps::Locals>().unwrap().entries().unwrap();
    assert!(entries.len() == 2 && entries.iter().all(|(_, e)| e.id == 2));
}

#[tokio::test]
async fn another_policy_raises_the_endpoints_epoch_after_the_map_has_it() {
    let kernel = fake::Kernel::new();
    let (mut target, _, epochs) = target(&kernel);
    target.update(&Attachment::Pod(pod(1))).await.unwrap();
    let stricter = Permission { policy: PolicyId(7), ingress_enforced: true, ..pod(1).permission.unwrap() };
    target.update(&Attachment::Pod(PodAttachment { permission: Some(stricter), ..pod(1) })).await.unwrap();
    assert_eq!(kernel.map::<maps::Endpoints>().unwrap().get(&101).unwrap().unwrap().policy, 7);
    assert_eq!(epochs.endpoint(1).unwrap(), 1);
}

#[tokio::test]
async fn what_a_process_before_left_is_pruned() {
    let kernel = fake::Kernel::new();
    let (mut before, ..) = target(&kernel);
    for id in [1, 2] {
        before.update(&Attachment::Pod(pod(id))).await.unwrap();
    }
    before.update(&Attachment::Host("10.9.9.9".parse().unwrap())).await.unwrap();
    let (mut after, interfaces, epochs) = target(&kernel);
    interfaces.0.lock().up = [(endpoint(1).host_interface, 101), (endpoint(2).host_interface, 102)].into();
    after.prune(&snapshot(vec![Attachment::Pod(pod(2))])).await.unwrap();
    assert_eq!(locals(&kernel), 2);
    assert_eq!(kernel.map::<maps::Endpoints>().unwrap().keys().unwrap(), [102]);
    assert_eq!(interfaces.0.lock().up.len(), 1);
    assert_eq!(epochs.node().unwrap(), 1);
}

/// The tables of one run, and the reconciler under test.
struct Run {
    writer: Writer<Attachment>,
    status: statedb::StatusReader<Attachment>,
    interfaces: FakeInterfaces,
}

fn run(kernel: &impl Kernel) -> Run {
    let (writer, reader) = statedb::table("attachments");
    let (target, interfaces, _) = target(kernel);
    let tasks = Tasks::new(Default::default());
    let status = statedb::reconcile(&tasks, "attach", reader, target);
    Run { writer, status, interfaces }
}

#[tokio::test(start_paused = true)]
async fn in_the_end_the_kernel_is_as_desired_however_often_it_fails() {
    for seed in 0..20 {
        let kernel = fake::Kernel::new();
        // The epochs and maps are opened through the kernel that fails.
        let chaos = fake::chaos(kernel.clone(), 0.3, seed);
        let mut run = run(&chaos);
        run.interfaces.0.lock().fail = 5;
        for id in 1..=6 {
            run.writer.insert(Attachment::Pod(pod(id)));
        }
        run.writer.insert(Attachment::Host("192.168.0.1".parse().unwrap()));
        run.writer.mark_initialized();
        for id in 1..=3 {
            run.writer.remove(&AttachmentKey::Pod(EndpointId(id)));
        }
        let revision = run.writer.commit();
        tokio::time::timeout(Duration::from_secs(3600), run.status.reached(revision)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(3600), run.status.pruned()).await.unwrap();
        let wanted = attachments([4, 5, 6]);
        let entries: BTreeMap<_, _> = kernel.map::<maps::Locals>().unwrap().entries().unwrap().into_iter().collect();
        assert_eq!(entries, wanted.iter().flat_map(attachment::local_entries).collect(), "seed {seed}");
        assert_eq!(run.interfaces.0.lock().up.values().copied().collect::<Vec<_>>(), [104, 105, 106]);
    }
}

fn attachments<const N: usize>(ids: [u16; N]) -> Vec<Attachment> {
    let host = Attachment::Host("192.168.0.1".parse().unwrap());
    ids.into_iter().map(|id| Attachment::Pod(pod(id))).chain([host]).collect()
}

#[test]
fn a_policys_revision_alone_changes_no_attachment() {
    let policy = policy(1);
    let later = EndpointPolicy { revision: 99, ..policy.clone() };
    assert_eq!(Permission::from(&policy), Permission::from(&later));
    assert_ne!(Permission::from(&policy), Permission::from(&EndpointPolicy { identity: IdentityId(5), ..later }));
}
