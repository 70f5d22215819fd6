// SPDX-License-Identifier: Apache-2.0
//! The relay that is asked: one connection for everybody, opened when needed and given up when it fails.

use crate::config::Config;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

/// How long the list of namespaces is good for: strangers may ask for it as often as they like.
const FRESH: Duration = Duration::from_secs(5);
/// For an answer that is no stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names of namespaces, and when they were asked for.
type CachedNames = (Instant, Vec<String>);

/// Clones share the connection.
#[derive(Clone)]
pub(crate) struct Relay {
    config: Arc<Config>,
    channel: Arc<Mutex<Option<Channel>>>,
    namespaces: Arc<Mutex<Option<CachedNames>>>,
}

impl Relay {
    pub(crate) fn new(config: &Config) -> Self {
        Self { config: Arc::new(config.clone()), channel: Arc::default(), namespaces: Arc::default() }
    }

    /// Flows from now on, after the last ones. The error is a message for people.
    pub(crate) async fn flows(&self, request: GetFlowsRequest) -> Result<Streaming<GetFlowsResponse>, String> {
        let mut client = self.client().await?;
        match client.get_flows(request).await {
            Ok(flows) => Ok(flows.into_inner()),
            Err(status) => Err(self.failed(&status).await),
        }
    }

    /// The namespaces that flows were seen of.
    pub(crate) async fn namespaces(&self) -> Result<Vec<String>, String> {
        let mut known = self.namespaces.lock().await;
        if let Some((_, names)) = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(names.clone());
        }
        let mut client = self.client().await?;
        let asked = timeout(PATIENCE, client.get_namespaces(GetNamespacesRequest {})).await;
        let list = match asked {
            Ok(Ok(list)) => list.into_inner().namespaces,
            Ok(Err(status)) => return Err(self.failed(&status).await),
            Err(_) => return Err("hubble-relay does not answer".to_owned()),
        };
        let mut names: Vec<_> = list.into_iter().map(|namespace| namespace.namespace).collect();
        names.sort();
        names.dedup();
        *known = Some((Instant::now(), names.clone()));
        Ok(names)
    }

    async fn client(&self) -> Result<ObserverClient<Channel>, String> {
        let mut channel = self.channel.lock().await;
        if let Some(channel) = channel.as_ref() {
            return Ok(ObserverClient::new(channel.clone()));
        }
        let server = self.config.relay().await.map_err(|error| error.to_string())?;
        let made = server.connect().await.map_err(|error| error.to_string())?;
        *channel = Some(made.clone());
        Ok(ObserverClient::new(made))
    }

    /// Gives the connection up, so that the next one is made with the certificates of then.
    pub(crate) async fn failed(&self, status: &tonic::Status) -> String {
        *self.channel.lock().await = None;
        format!("hubble-relay: {}", status.message())
    }
}
