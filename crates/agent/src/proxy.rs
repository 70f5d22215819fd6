// SPDX-License-Identifier: Apache-2.0
//! Hands the node's proxy what it is to serve.

use gateway::{Config, Reading, Snapshots};
use k8s::Client;
use statedb::Tasks;
use std::path::PathBuf;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tracing::{info, warn};

/// Starts to serve Gateways, if that is on.
pub(crate) fn start(config: &Config, socket: PathBuf, client: &Client, tasks: &Tasks) {
    if !config.enabled {
        return;
    }
    let objects = Reading::Serving { secrets: &config.secrets_namespace }.objects(client, tasks);
    let snapshots = gateway::serve(tasks, &objects, &config.serving());
    tasks.spawn_fallible("proxy-configuration", publish(socket, snapshots));
}

/// Gives each proxy that connects the newest snapshot and all that follow. None is listened for before there is one: a proxy
/// that has to wait goes on with what it has.
async fn publish(socket: PathBuf, mut snapshots: Snapshots) -> Result<(), String> {
    if snapshots.wait_for(|published| published.version.0 > 0).await.is_err() {
        return Ok(());
    }
    let listener = rest::listen(&socket).and_then(UnixListener::from_std);
    let listener = listener.map_err(|error| format!("proxy socket {}: {error}", socket.display()))?;
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        let snapshots = snapshots.clone();
        tokio::spawn(async move {
            info!("proxy connected");
            let (status, mut told) = watch::channel(None);
            let report = async {
                while told.changed().await.is_ok() {
                    let status: Option<l7::link::Status> = told.borrow_and_update().clone();
                    for fault in status.iter().flat_map(|status| &status.faults) {
                        warn!(object = %fault.object, error = fault.reason, "proxy cannot serve an object");
                    }
                }
            };
            tokio::select! {
                result = l7::link::publish(stream, snapshots, &status) => {
                    info!(error = result.err().map(|error| error.to_string()), "proxy is gone");
                }
                () = report => {}
            }
        });
    }
}
