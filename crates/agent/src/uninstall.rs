// SPDX-License-Identifier: Apache-2.0
//! Leaving a clean node when the product is uninstalled, where `cni-uninstall` says so.
//!
//! An agent that ends leaves everything in the kernel: the next one adopts it, also when the DaemonSet was deleted and made anew in
//! the meantime. Only with the key, and only when the DaemonSet is gone, it removes programs, maps, links, routes, devices and the
//! CNI configuration. The deletion is seen through a watch that is open already, since `helm uninstall` takes the agent's permissions
//! away at the same time.

use crate::config::Config;
use anyhow::Context;
use k8s::k8s_openapi::api::apps::v1::DaemonSet;
use k8s::{Client, WatchConfig};
use statedb::{Change, Reader, Row, Tasks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

/// The DaemonSet that agents belong to.
const DAEMON_SET: &str = "cilium";

/// The DaemonSet, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Whether its deletion has begun.
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
    /// Cleans the node if the product was uninstalled. Nothing else of the agent may run any more: a pod that is being attached would
    /// get programs back.
    pub(crate) async fn finish(self, config: &Config) {
        if self.gone.load(Ordering::Relaxed) {
            info!("DaemonSet deleted: cleaning up this node");
            clean(config).await;
        }
    }
}

/// A set that was never there, as with an agent that is started by hand, is not one that was uninstalled.
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

/// Each step is tried, whatever became of the others.
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
