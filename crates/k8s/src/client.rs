// SPDX-License-Identifier: Apache-2.0
//! The connection to the API server: its address, our credentials, failover between several servers, and rate limits.

mod deadline;
mod failover;
mod limit;
mod limits;
mod retry;
mod transport;
mod writes;

use crate::gateway::{Object, Served, Spec};
use crate::reflect::{Acceptable, Feed, IntoIngested, Source, WatchFailure, Watches, reflect};
use failover::Servers;
pub use failover::{chain, is_forbidden, is_permanent};
use hyper::Uri;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use limit::RateLimit;
pub use limits::Limits;
pub(crate) use limits::is_watch;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;
pub use writes::WriteFailure;
use writes::Writes;

/// How to reach the API server and authenticate.
///
/// Without any field set, it uses what `kubectl` would (`KUBECONFIG`, `~/.kube/config`), or else a pod's environment:
/// `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` and the service account's token and CA, both read again when
/// they are rotated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientConfig {
    /// Kubeconfig file (key `k8s-kubeconfig-path`).
    pub kubeconfig: Option<PathBuf>,
    /// Context within the kubeconfig; the file's current one if unset.
    pub context: Option<String>,
    /// Addresses of API servers (key `k8s-api-server-urls`): they take the place of the configured one, and when one
    /// does not answer the next is tried. `https://` is assumed where no scheme is given.
    pub api_servers: Vec<String>,
    /// Maximum requests per second (key `k8s-client-qps`); unlimited if unset.
    pub qps: Option<f64>,
    /// Requests that may be made at once before `qps` applies (key `k8s-client-burst`).
    pub burst: Option<u32>,
    /// `User-Agent` of the requests.
    pub user_agent: Option<String>,
    /// Timeouts.
    pub limits: Limits,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be read or is incomplete.
    #[error("kubeconfig {path}: cannot be used")]
    Kubeconfig {
        /// File.
        path: String,
        /// Cause.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "no API server is configured: set k8s-kubeconfig-path, or KUBECONFIG, or run in a pod with a service account"
    )]
    NotConfigured(#[source] Box<kube::config::InferConfigError>),
    /// An entry of `k8s-api-server-urls` is not a URL.
    #[error("k8s-api-server-urls: {url:?} is not a URL")]
    Url {
        /// What it says.
        url: String,
        /// Cause.
        #[source]
        source: hyper::http::uri::InvalidUri,
    },
    /// The client cannot be created, for instance because a certificate is unreadable.
    #[error("API server {url}: the client cannot be set up")]
    Setup {
        /// Server.
        url: String,
        /// Cause.
        #[source]
        source: Box<kube::Error>,
    },
}

/// The Kubernetes client. Clones share connections, limits and the choice of server.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    watches: Watches,
    writes: Writes,
}

impl Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl From<kube::Client> for Client {
    fn from(inner: kube::Client) -> Self {
        Self { inner, watches: Watches::default(), writes: Writes::default() }
    }
}

impl Client {
    /// Reads the configuration and creates the client. No request is made: an unreachable server is not an error.
    ///
    /// # Errors
    ///
    /// When the configuration refers to something missing or invalid.
    pub async fn connect(config: &ClientConfig) -> Result<Self, Error> {
        install_crypto();
        let base = load(config).await?;
        let urls = servers(config, &base.cluster_url)?;
        let namespace = base.default_namespace.clone();
        let mut clients = Vec::with_capacity(urls.len());
        for url in urls {
            let mut server = base.clone();
            server.cluster_url = url.clone();
            let client = transport::client(&server, &config.limits)
                .map_err(|source| Error::Setup { url: url.to_string(), source: Box::new(source) })?;
            clients.push((url.to_string(), client));
        }
        Ok(Self::limited(clients, config, namespace))
    }

    /// Wraps an existing client with the configured limits. Server addresses and credentials are not read.
    #[must_use]
    pub fn over(server: kube::Client, config: &ClientConfig) -> Self {
        let namespace = server.default_namespace().to_owned();
        Self::limited(vec![("the given one".to_owned(), server)], config, namespace)
    }

    fn limited(servers: Vec<(String, kube::Client)>, config: &ClientConfig, namespace: String) -> Self {
        let rate = config.qps.filter(|qps| *qps > 0.0).map(|qps| RateLimit::new(qps, config.burst.unwrap_or(1)));
        let writes = Writes::default();
        let service = Servers::new(servers, rate, config.limits, writes.clone()).into_service();
        Self { inner: kube::Client::new(service, namespace), watches: Watches::default(), writes }
    }

    /// The underlying client, for what this crate does not cover.
    #[must_use]
    pub fn kube(&self) -> kube::Client {
        self.inner.clone()
    }

    /// The namespace of the service account or of the kubeconfig's context.
    #[must_use]
    pub fn default_namespace(&self) -> &str {
        self.inner.default_namespace()
    }

    /// The namespace of this daemon's own objects: as its pod is told (`CILIUM_K8S_NAMESPACE`), or else the default one.
    #[must_use]
    pub fn own_namespace(&self) -> String {
        let told = std::env::var("CILIUM_K8S_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
        told.unwrap_or_else(|| self.default_namespace().to_owned())
    }

    /// Objects of a kind in the whole cluster.
    #[must_use]
    pub fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.kube())
    }

    /// Objects of a kind in one namespace.
    #[must_use]
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.kube(), namespace)
    }

    /// Tables that have not followed the API server for that long. A table is followed while a watch is open or its
    /// list is coming in.
    #[must_use]
    pub fn failing_watches(&self, for_at_least: Duration) -> Vec<WatchFailure> {
        self.watches.failing(for_at_least)
    }

    /// Kinds of objects of which no write has been answered for that long, although writes have been tried.
    #[must_use]
    pub fn failing_writes(&self, for_at_least: Duration) -> Vec<WriteFailure> {
        self.writes.failing(for_at_least)
    }

    /// Mirrors the API server into a table, until dropped.
    ///
    /// The table is marked initialised after the first complete list. A new list, whenever one is needed, replaces all
    /// rows at once; until it is complete the old ones stay. An object that cannot be decoded does not affect the
    /// others: it is treated like one that `ingest` rejects.
    pub fn reflect<K, R, I, F>(
        &self,
        api: Api<K>,
        writer: statedb::Writer<R>,
        ingest: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        R: statedb::Row,
        I: IntoIngested<R> + 'static,
        F: Fn(&K) -> I + Send + 'static,
    {
        self.reflect_with(api, crate::WatchConfig::default(), writer, ingest)
    }

    /// As [`Client::reflect`], for objects matching field and label selectors.
    pub fn reflect_with<K, R, I, F>(
        &self,
        api: Api<K>,
        watch: crate::WatchConfig,
        writer: statedb::Writer<R>,
        ingest: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        R: statedb::Row,
        I: IntoIngested<R> + 'static,
        F: Fn(&K) -> I + Send + 'static,
    {
        self.follow(Source { api, kind: (), watch }, vec![Feed::new(writer, ingest)], Acceptable::Any)
    }

    /// As [`Client::reflect`], into several tables by one watch.
    pub fn reflect_into<K>(&self, api: Api<K>, feeds: Vec<Feed<K>>) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.follow(Source { api, kind: (), watch: Default::default() }, feeds, Acceptable::Any)
    }

    /// As [`Client::reflect`], but the first list is consistent as well, for callers that must not start from an older
    /// state than their predecessor left. The API server cannot answer that from its cache alone.
    pub fn reflect_newest<K, R, I, F>(
        &self,
        api: Api<K>,
        writer: statedb::Writer<R>,
        ingest: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        R: statedb::Row,
        I: IntoIngested<R> + 'static,
        F: Fn(&K) -> I + Send + 'static,
    {
        self.reflect_newest_into(api, vec![Feed::new(writer, ingest)])
    }

    /// As [`Client::reflect_newest`], into several tables by one watch.
    pub fn reflect_newest_into<K>(&self, api: Api<K>, feeds: Vec<Feed<K>>) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.follow(Source { api, kind: (), watch: Default::default() }, feeds, Acceptable::Newest)
    }

    fn follow<K>(
        &self,
        source: Source<K>,
        feeds: Vec<Feed<K>>,
        first: Acceptable,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let progress = self.watches.begin(K::kind(&()).into_owned(), first);
        reflect(source, feeds.into_iter().map(Into::into).collect(), progress)
    }

    /// As [`Client::reflect`], of all objects of a kind that the cluster may serve in one version or another, or not at all.
    ///
    /// The best served version is followed. While the kind is not served, the table is complete and empty.
    pub fn reflect_served<S, R, I, F>(
        &self,
        writer: statedb::Writer<R>,
        ingest: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        S: Spec,
        R: statedb::Row,
        I: IntoIngested<R> + 'static,
        F: Fn(&Object<S>) -> I + Send + Sync + 'static,
    {
        crate::reflect::reflect_served(self.kube(), writer, ingest, self.watches.clone())
    }

    /// The best version of a kind that the cluster serves, if any.
    ///
    /// # Errors
    ///
    /// The API server does not say.
    pub async fn served<S: Spec>(&self) -> Result<Option<Served>, kube::Error> {
        crate::gateway::served::<S>(&self.inner).await
    }
}

/// One cryptography provider per process. The first one wins; ours all use the same.
fn install_crypto() {
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn load(config: &ClientConfig) -> Result<kube::Config, Error> {
    let mut loaded = if let Some(path) = &config.kubeconfig {
        let fail = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
        let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
        kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(fail)?
    } else {
        kube::Config::infer().await.map_err(|source| Error::NotConfigured(Box::new(source)))?
    };
    if let Some(agent) = config.user_agent.as_deref().and_then(|a| a.parse().ok()) {
        loaded.headers.push((hyper::header::USER_AGENT, agent));
    }
    Ok(loaded)
}

fn servers(config: &ClientConfig, configured: &Uri) -> Result<Vec<Uri>, Error> {
    if config.api_servers.is_empty() {
        return Ok(vec![configured.clone()]);
    }
    config
        .api_servers
        .iter()
        .map(|text| {
            let url = if text.contains("://") { text.clone() } else { format!("https://{text}") };
            url.parse().map_err(|source| Error::Url { url: text.clone(), source })
        })
        .collect()
}

#[cfg(test)]
mod tests;
