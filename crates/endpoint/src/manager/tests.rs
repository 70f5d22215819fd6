// SPDX-License-Identifier: Apache-2.0
//! What the manager notices by itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use super::*;
use crate::addresses::Families;
use crate::testing::endpoint;
use crate::testing::fakes::{FakeLinks, Pool};
use std::path::Path;

/// A manager over tables that nobody else touches; every change counts as resolved and applied.
struct Alone {
    manager: Arc<Manager>,
    links: FakeLinks,
    pool: Pool,
    _resolved: watch::Sender<Revision>,
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
    let (_, pods) = statedb::table("k8s-pods");
    let (mut attachments_writer, attachments) = statedb::table("attachments");
    attachments_writer.mark_initialized();
    let tasks = statedb::Tasks::new(Default::default());
    let status = statedb::reconcile(&tasks, "attach", attachments.clone(), Nothing);
    let (resolved_sender, resolved) = watch::channel(Revision(u64::MAX));
    let pool = Pool { size: 10, ..Pool::default() };
    let config = Config { runtime: runtime.to_owned(), ipv6: true, ..Config::default() };
    let sources = Sources { pods, attachments, status, resolved };
    let manager = Arc::new(Manager::new(config, Arc::new(pool.clone()), writer, sources));
    Alone { manager, links: FakeLinks::default(), pool, _resolved: resolved_sender }
}

impl Alone {
    /// Restores these endpoints, with their interfaces.
    async fn with(self, ids: &[u16]) -> Self {
        for id in ids {
            let endpoint = endpoint(*id);
            self.manager.state.save(&endpoint).unwrap();
            self.links.0.lock().insert(endpoint.host_interface, endpoint.host_ifindex);
        }
        self.manager.restore(&self.links).await;
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
    crate::queue::Queue::lock(&folder.path().join("deleteQueue")).unwrap().push("container1").unwrap();
    alone.until(|a| a.ids() == [2]).await;
}
