// SPDX-License-Identifier: Apache-2.0
//! What the manager notices by itself.

use super::*;
use crate::addresses::Families;
use crate::attachment::PodAttachment;
use crate::queue::Queue;
use crate::reconcile::Maps;
use crate::testing::agent::pod;
use crate::testing::endpoint;
use crate::testing::fakes::{FakeLinks, Pool};
use datapath::fake;
use std::fs;
use std::path::Path;

/// A manager over tables that nobody else touches; every change counts as resolved and applied.
struct Alone {
    manager: Arc<Manager>,
    links: FakeLinks,
    pool: Pool,
    maps: Maps,
    pods: Writer<Pod>,
}

struct Nothing;

impl statedb::Target<Attachment> for Nothing {
    type Error = std::io::Error;
    async fn update(&mut self, _: &Attachment) -> std::io::Result<()> {
        Ok(())
    }
    async fn delete(&mut self, _: &AttachmentKey) -> std::io::Result<()> {
        Ok(())
    }
    async fn prune(&mut self, _: &statedb::Snapshot<Attachment>) -> std::io::Result<()> {
        Ok(())
    }
}

fn alone(runtime: &Path) -> Alone {
    let (writer, _) = statedb::table("endpoints");
    let (pods_writer, pods) = statedb::table("k8s-pods");
    let tasks = statedb::Tasks::new(Default::default());
    let attachments = statedb::merge(&tasks, "attachments", []);
    let status = statedb::reconcile(&tasks, "attach", attachments.rows.clone(), Nothing);
    let pool = Pool { size: 10, ..Pool::default() };
    let config = Config { runtime: runtime.to_owned(), ipv6: true, ..Config::default() };
    let sources = Sources { pods, attachments, status };
    let manager = Arc::new(Manager::new(config, Arc::new(pool.clone()), writer, sources, k8s::Warnings::channel().0));
    let maps = Maps::open(&fake::Kernel::new()).unwrap();
    Alone { manager, links: FakeLinks::default(), pool, maps, pods: pods_writer }
}

impl Alone {
    /// Restores these endpoints, with their interfaces.
    async fn with(self, ids: &[u16]) -> Self {
        for id in ids {
            let endpoint = endpoint(*id);
            self.manager.state.save(&endpoint).unwrap();
            self.links.0.lock().insert(endpoint.host_interface, endpoint.host_ifindex);
        }
        self.manager.restore(&self.links, &self.maps).await.unwrap();
        tokio::spawn(Arc::clone(&self.manager).sweep(self.links.clone()));
        self
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1000), wait).await.unwrap();
    }

    fn ids(&self) -> Vec<u16> {
        self.manager.endpoints.snapshot().iter().map(|e| e.id.0).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_endpoint_never_comes_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let alone = alone(folder.path()).with(&[]).await;
    let families = Families { ipv4: true, ipv6: true };
    alone.manager.allocate("a/b", families, true).unwrap();
    alone.manager.allocate("c/d", families, false).unwrap();
    alone.until(|a| a.pool.taken.lock().len() == 2).await;
    assert!(alone.pool.taken.lock().values().all(|owner| owner == "c/d"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_interface_vanished_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let alone = alone(folder.path()).with(&[1, 2, 3]).await;
    assert_eq!((alone.ids(), alone.pool.taken.lock().len()), (vec![1, 2, 3], 6));
    alone.links.0.lock().remove(&endpoint(2).host_interface);
    // An interface of that name, but another one: the pod's is gone.
    alone.links.0.lock().insert(endpoint(3).host_interface, 999);
    alone.until(|a| a.ids() == [1] && a.pool.taken.lock().len() == 2).await;
    assert_eq!(alone.manager.state.load().unwrap(), [endpoint(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_queued_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let alone = alone(folder.path()).with(&[1, 2]).await;
    let queue = Queue::new(&folder.path().join("deleteQueue"));
    queue.push("container1").await.unwrap();
    alone.until(|a| a.ids() == [2]).await;
    // The lock stays.
    alone.until(|_| fs::read_dir(folder.path().join("deleteQueue")).unwrap().count() == 1).await;
    assert!(queue.pending().await.unwrap().is_empty());
}

/// The kernel as a process before left it, with these endpoints and their interfaces.
fn after_a_process(runtime: &Path, ids: &[u16]) -> Alone {
    let alone = alone(runtime);
    let kernel = fake::Kernel::new();
    for id in ids {
        let endpoint = endpoint(*id);
        alone.links.0.lock().insert(endpoint.host_interface.clone(), endpoint.host_ifindex);
        let attachment =
            PodAttachment { endpoint: Arc::new(endpoint), permission: None, router_ipv4: None, router_ipv6: None };
        let entry = attachment.entry();
        kernel.map::<abi::maps::Endpoints>().unwrap().insert(&entry.ifindex, &entry).unwrap();
    }
    Alone { maps: Maps::open(&kernel).unwrap(), ..alone }
}

/// The pod of an endpoint, as the API server tells of it.
fn pod_of(id: u16) -> Pod {
    let Endpoint { ipv4, ipv6, .. } = endpoint(id);
    let ips = vec![ipv4.unwrap().into(), ipv6.unwrap().into()];
    Pod { ips, uid: format!("uid-{id}"), ..pod("default", &format!("pod-{id}")) }
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_ends_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let alone = after_a_process(folder.path(), &[1]);
    // A file in its place: nobody can read that as a folder, root neither.
    let state = folder.path().join("state");
    fs::write(&state, "").unwrap();
    let error = alone.manager.restore(&alone.links, &alone.maps).await.unwrap_err();
    assert!(statedb::with_causes(&error).contains(&*state.to_string_lossy()), "{error}");
    assert!(!alone.manager.endpoints.snapshot().initialized(), "nothing may be pruned");
}

#[tokio::test(start_paused = true)]
async fn endpoints_whose_state_is_lost_are_recovered_when_their_pods_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = after_a_process(folder.path(), &[1, 2, 3, 4, 5]);
    let file = |id: u16| folder.path().join(format!("state/{id}/ep_config.json"));
    for id in [1, 2, 4] {
        alone.manager.state.save(&endpoint(id)).unwrap();
    }
    fs::write(file(2), "{\"id\": 2, \"pod\"").unwrap();
    fs::create_dir(folder.path().join("state/3")).unwrap();
    fs::copy(file(1), file(4)).unwrap();
    let (manager, links, maps) = (Arc::clone(&alone.manager), alone.links.clone(), alone.maps.clone());
    let restoring = tokio::spawn(async move { manager.restore(&links, &maps).await });
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(!alone.manager.endpoints.snapshot().initialized(), "until the pods are known, nothing is pruned");
    assert!(*alone.manager.restored().borrow(), "what is on disk is served");
    assert_eq!(alone.ids(), [1]);
    assert!([1, 2, 3, 4, 5].iter().all(|id| alone.manager.roster.lock().taken().contains(&EndpointId(*id))));
    assert_eq!(alone.pool.taken.lock().len(), 10, "nobody else gets their addresses");
    // The address of one of them comes late.
    for id in [1, 2, 3, 4] {
        alone.pods.insert(pod_of(id));
    }
    alone.pods.mark_initialized();
    tokio::time::sleep(Duration::from_secs(1)).await;
    alone.pods.insert(pod_of(5));
    alone.pods.commit();
    restoring.await.unwrap().unwrap();
    let of_a_container =
        |e: &Endpoint| Endpoint { container_id: String::new(), netns: String::new(), netns_cookie: 0, ..e.clone() };
    let restored: Vec<_> = alone.manager.endpoints.snapshot().iter().map(|e| of_a_container(e)).collect();
    assert_eq!(restored, [1, 2, 3, 4, 5].map(|id| of_a_container(&endpoint(id))));
    assert_eq!(alone.pool.taken.lock().len(), 10);
    assert_eq!(alone.manager.state.load().unwrap().len(), 5, "the next start finds them on disk");
    assert!(folder.path().join("state/2.unreadable/ep_config.json").exists());
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_tells_needs_no_api_server() {
    let folder = tempfile::tempdir().unwrap();
    let alone = after_a_process(folder.path(), &[1, 2, 3]);
    // Its interface is still there.
    Queue::new(&folder.path().join("deleteQueue")).push("container2").await.unwrap();
    let alone = tokio::time::timeout(Duration::from_secs(60), alone.with(&[1, 2, 3])).await.unwrap();
    assert_eq!(alone.ids(), [1, 3]);
    assert_eq!(alone.manager.state.load().unwrap(), [endpoint(1), endpoint(3)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_has_is_not_recovered_without_a_pod_or_an_interface() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = after_a_process(folder.path(), &[1, 2, 3, 4, 5, 6]);
    let host_interface = |id: u16| endpoint(id).host_interface;
    alone.links.0.lock().remove(&host_interface(1));
    // The health endpoint of a process that has just ended.
    alone.links.0.lock().remove(&host_interface(2));
    alone.links.0.lock().insert(crate::health::INTERFACE.to_owned(), endpoint(2).host_ifindex);
    // Another interface has got the number.
    alone.links.0.lock().remove(&host_interface(6));
    alone.links.0.lock().insert("eth0".to_owned(), endpoint(6).host_ifindex);
    for pod in [
        pod_of(1),
        pod_of(2),
        Pod { ended: true, ..pod_of(3) },
        Pod { host_network: true, ..pod_of(4) },
        // One address of two.
        Pod { ips: vec![endpoint(5).ipv4.unwrap().into()], ..pod_of(5) },
        pod_of(6),
    ] {
        alone.pods.insert(pod);
    }
    alone.pods.mark_initialized();
    let alone = alone.with(&[]).await;
    assert_eq!(alone.ids(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_an_endpoint_does_not_get_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = after_a_process(folder.path(), &[1, 2]);
    alone.manager.state.save(&Endpoint { kind: endpoint(2).kind, ..endpoint(1) }).unwrap();
    alone.pods.insert(pod_of(2));
    alone.pods.mark_initialized();
    let alone = alone.with(&[]).await;
    assert_eq!(alone.ids(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_recovered_endpoint_goes_with_its_container() {
    let folder = tempfile::tempdir().unwrap();
    let attachment = |container: &str| AttachmentId { container_id: container.into(), interface: "eth0".into() };
    let mut alone = after_a_process(folder.path(), &[1]);
    let interface = crate::cni::host_interface(&attachment("c1"));
    *alone.links.0.lock() = [(interface.clone(), endpoint(1).host_ifindex)].into();
    alone.pods.insert(pod_of(1));
    alone.pods.mark_initialized();
    let alone = alone.with(&[]).await;
    assert_eq!(alone.ids(), [1]);
    for other in [EndpointRef::Container("c2".into()), EndpointRef::Attachment(attachment("c2"))] {
        assert_eq!(alone.manager.remove(&other).await, 0);
    }
    let name = EndpointRef::Attachment(attachment("c1"));
    assert!(alone.manager.endpoints.snapshot().iter().all(|e| name.matches(e)));
    assert_eq!(alone.manager.remove(&EndpointRef::Container("c1".into())).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_whose_lock_another_keeps_does_not_keep_the_agent_from_its_endpoints() {
    let folder = tempfile::tempdir().unwrap();
    let queue = folder.path().join("deleteQueue");
    fs::create_dir(&queue).unwrap();
    let lock =
        nix::fcntl::Flock::lock(fs::File::create(queue.join("lockfile")).unwrap(), nix::fcntl::FlockArg::LockExclusive);
    let alone = alone(folder.path()).with(&[1]).await;
    assert_eq!(alone.ids(), [1]);
    drop(lock.unwrap());
}

#[tokio::test]
async fn an_attachment_and_an_address_are_one_endpoints_before_it_is_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let alone = alone(folder.path()).with(&[]).await;
    let (roster, ip) = (&alone.manager.roster, endpoint(9).ipv6.unwrap().into());
    let joining = Joining::reserve(roster, endpoint(9)).unwrap();
    let again = Joining::reserve(roster, Endpoint { ipv4: None, ipv6: None, ..endpoint(9) }).err();
    assert!(matches!(again, Some(CreateError::Exists { id, .. }) if id == joining.endpoint().id), "{again:?}");
    let other = Joining::reserve(roster, Endpoint { container_id: "other".into(), ..endpoint(9) }).err();
    assert!(matches!(other, Some(CreateError::Address(AddressError::Taken { .. }))), "{other:?}");
    let id = joining.endpoint().id;
    assert_eq!(alone.manager.release(None, ip), Err(AddressError::InUse { ip, id }));
    assert!(roster.lock().taken().contains(&id));
    drop(joining);
    assert_eq!((alone.manager.release(None, ip), roster.lock().taken().len()), (Ok(()), 0));
}

#[tokio::test]
async fn a_number_is_not_given_again_while_its_state_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let alone = alone(folder.path()).with(&[1, 2]).await;
    let removed = alone.manager.roster.lock().take_out(|e| e.id.0 == 2);
    assert_eq!(alone.ids(), [1]);
    assert_eq!(alone.manager.roster.lock().taken(), [EndpointId(1), EndpointId(2)].into());
    alone.manager.roster.lock().left(&removed);
    assert_eq!(alone.manager.roster.lock().taken(), [EndpointId(1)].into());
}
