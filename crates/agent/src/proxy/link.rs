// SPDX-License-Identifier: Apache-2.0
//! Proxies connect to a socket, and are given the newest snapshot and all that follow.

use gateway::Snapshots;
use l7::link::{NodeSockets, SOCKETS, State, accept};
use model::PodName;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// What a proxy says of itself.
pub(super) type Telling = (PodName, State);

/// Serves the proxies that connect, with sockets of this node too. None is listened for before there is a snapshot: a proxy that has to
/// wait goes on with what it has.
pub(super) async fn serve(
    socket: PathBuf,
    mut snapshots: Snapshots,
    told: mpsc::Sender<Telling>,
) -> Result<(), String> {
    if snapshots.wait_for(|published| published.version.0 > 0).await.is_err() {
        return Ok(());
    }
    // What they are told to listen at, they can ask for.
    let sockets = node_sockets(&socket.with_file_name(SOCKETS), snapshots.clone())?;
    tokio::select! {
        result = super::socket::serve(&socket, |stream| one(stream, snapshots.clone(), told.clone())) => result,
        () = sockets.serve() => Ok(()),
    }
}

fn node_sockets(path: &Path, snapshots: Snapshots) -> Result<NodeSockets, String> {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let opened = folder.and_then(|()| NodeSockets::open(path, snapshots));
    opened.map_err(|error| format!("proxy socket {}: {error}", path.display()))
}

async fn one(stream: UnixStream, snapshots: Snapshots, told: mpsc::Sender<Telling>) {
    let link = match accept(stream).await {
        Ok(link) => link,
        Err(error) => return warn!(error = statedb::with_causes(&error), "a proxy is not understood"),
    };
    let Some((namespace, name)) = link.pod().split_once('/') else {
        return warn!(pod = link.pod(), "a proxy does not say which pod it is in");
    };
    let pod = PodName::new(namespace, name);
    info!(%pod, "proxy connected");
    let (state, mut states) = watch::channel(State::default());
    let pass_on = async {
        while states.changed().await.is_ok() {
            let state = states.borrow_and_update().clone();
            for fault in state.status.iter().flat_map(|status| &status.faults) {
                warn!(%pod, object = %fault.object, error = fault.reason, "proxy cannot serve an object");
            }
            if state.status.is_some() && told.send((pod.clone(), state)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        result = link.publish(snapshots, &state) => {
            info!(%pod, error = result.err().map(|error| statedb::with_causes(&error)), "proxy is gone");
        }
        () = pass_on => {}
    }
}
