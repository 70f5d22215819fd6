// SPDX-License-Identifier: Apache-2.0
//! Cleaning the node when the product is uninstalled, with `cni-uninstall`.
//!
//! An agent that ends leaves everything in the kernel: the next one adopts it, even if the DaemonSet was deleted and
//! recreated in the meantime. Only with that key, and only when the DaemonSet is gone, does it remove programs, maps,
//! links, routes, devices and the CNI configuration. It sees the deletion through an already open watch, since `helm
//! uninstall` revokes the agent's permissions at the same time.

use crate::config::Config;
use anyhow::Context;
use k8s::k8s_openapi::api::apps::v1::DaemonSet;
use k8s::{Client, WatchConfig};
use statedb::{Change, Reader, Row, Tasks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

/// The agents' DaemonSet.
const DAEMON_SET: &str = "cilium";

/// What matters of the DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Whether it is being deleted.
    deleted: bool,
}

impl Row for Owner {
    type Key = ();
    fn key(&self) {}
}

/// Whether the DaemonSet has been deleted.
#[derive(Clone, Default)]
pub(crate) struct Uninstall {
    gone: Arc<AtomicBool>,
}

/// With `cni-uninstall`, watches the DaemonSet.
pub(crate) fn watch(config: &Config, namespace: &str, client: &Client, tasks: &Tasks) -> Uninstall {
    let uninstall = Uninstall::default();
    if !config.endpoint.uninstall {
        return uninstall;
    }
    let (writer, reader) = statedb::table("daemonset");
    let this = WatchConfig::default().fields(&format!("metadata.name={DAEMON_SET}"));
    let api = client.namespaced::<DaemonSet>(namespace);
    tasks.spawn(
        "reflect-daemonset",
        client.reflect_with(api, this, writer, |set: &DaemonSet| {
            Some(Owner { deleted: set.metadata.deletion_timestamp.is_some() })
        }),
    );
    tasks.spawn("follow-daemonset", follow(reader, Arc::clone(&uninstall.gone)));
    uninstall
}

impl Uninstall {
    /// Cleans the node if the product was uninstalled. Nothing else of the agent may still be running: attaching a pod
    /// would bring programs back.
    pub(crate) async fn finish(self, config: &Config) {
        if self.gone.load(Ordering::Relaxed) {
            info!("DaemonSet deleted: cleaning up this node");
            clean(config).await;
        }
    }
}

/// A DaemonSet that never existed, as with an agent started by hand, was not uninstalled.
async fn follow(reader: Reader<Owner>, gone: Arc<AtomicBool>) {
    let mut changes = reader.subscribe();
    loop {
        for change in changes.next().await.changes {
            gone.store(is_uninstall(&change), Ordering::Relaxed);
        }
    }
}

fn is_uninstall(change: &Change<Owner>) -> bool {
    match change {
        Change::Upsert(owner) => owner.deleted,
        Change::Delete(_) => true,
    }
}

/// Each step is tried, regardless of the others.
async fn clean(config: &Config) {
    let conflist = config
        .endpoint
        .conflist
        .as_deref()
        .map_or(Ok(()), |path| endpoint::conflist::remove(path).context("CNI configuration"));
    let kernel = datapath::bpf::post_uninstall_cleanup(&config.bpf_root).context("programs, maps and links");
    let network = node::cleanup().await.context("devices and routes");
    let state = config.endpoint.forget().context("state of endpoints");
    for result in [conflist, kernel, network, state] {
        if let Err(error) = result {
            warn!(error = format!("{error:#}"), "left on the node; `cilium-dbg post-uninstall-cleanup` removes it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn settles(gone: &AtomicBool, wanted: bool) {
        let agreed = async {
            while gone.load(Ordering::Relaxed) != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), agreed).await.unwrap();
    }

    #[tokio::test]
    async fn only_a_daemon_set_that_was_there_and_went_means_an_uninstall() {
        let (mut writer, reader) = statedb::table("daemonset");
        // Not what the first row says, so that it is seen to have been followed before the row goes.
        let gone = Arc::new(AtomicBool::new(true));
        tokio::spawn(follow(reader, Arc::clone(&gone)));
        writer.mark_initialized();
        writer.insert(Owner { deleted: false });
        writer.commit();
        settles(&gone, false).await;
        writer.remove(&());
        writer.commit();
        settles(&gone, true).await;
        writer.insert(Owner { deleted: false });
        writer.commit();
        settles(&gone, false).await;
    }
}
