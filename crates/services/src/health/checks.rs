// SPDX-License-Identifier: Apache-2.0
//! The health checks of Services under a local policy: one listener for each that has a `healthCheckNodePort`.

use super::http::{self, Answer};
use super::is_healthy;
use crate::served::{HealthCheck, Served};
use crate::teller::{Failing, Teller};
use hyper::StatusCode;
use model::{Frontend, ServiceName};
use serde_json::json;
use statedb::{Snapshot, StatusReader};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("service {service}, health check node port {port}")]
pub(crate) struct Error {
    service: ServiceName,
    port: u16,
    source: Cause,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// Somebody else has it.
    #[error("the port is that of {0}")]
    Taken(String),
    #[error(transparent)]
    Other(std::io::Error),
}

/// The listeners.
#[derive(Debug)]
pub(crate) struct Checks {
    listeners: BTreeMap<ServiceName, Listener>,
    failing: Failing<ServiceName>,
    teller: Teller,
    /// Of the maps, which the checks speak for.
    status: StatusReader<Frontend>,
}

#[derive(Debug)]
struct Listener {
    port: u16,
    endpoints: watch::Sender<usize>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    pub(crate) fn new(teller: Teller, status: StatusReader<Frontend>) -> Self {
        Self { listeners: BTreeMap::new(), failing: Failing::default(), teller, status }
    }

    async fn put(&mut self, service: &ServiceName, check: HealthCheck) -> Result<(), Error> {
        if let Some(listener) = self.listeners.get(service).filter(|listener| listener.port == check.port) {
            listener.endpoints.send_replace(check.local_endpoints);
            return Ok(());
        }
        self.listeners.remove(service);
        let socket = http::listen(check.port).await.map_err(|error| self.failed(service, check.port, error))?;
        self.failing.end(service);
        let (endpoints, counted) = watch::channel(check.local_endpoints);
        let (name, status) = (service.clone(), self.status.clone());
        let answer = move |path: &str| {
            (path == "/healthz" || path == "/").then(|| answer(&name, *counted.borrow(), is_healthy(&status)))
        };
        let task = tokio::spawn(http::serve(socket, answer)).abort_handle();
        self.listeners.insert(service.clone(), Listener { port: check.port, endpoints, task });
        Ok(())
    }

    fn failed(&mut self, service: &ServiceName, port: u16, error: std::io::Error) -> Error {
        let other = self.listeners.iter().find(|(_, listener)| listener.port == port);
        let owner =
            || other.map_or_else(|| "a program of the node".to_owned(), |(name, _)| format!("the Service {name}"));
        let source = match error.kind() {
            std::io::ErrorKind::AddrInUse => Cause::Taken(owner()),
            _ => Cause::Other(error),
        };
        if self.failing.has_lasted(service) {
            let says =
                format!("does not tell load balancers at port {port} (healthCheckNodePort) of its endpoints: {source}");
            self.teller.service(service, "HealthCheckNotServed", &says);
        }
        Error { service: service.clone(), port, source }
    }
}

impl statedb::Target<Served> for Checks {
    type Error = Error;

    async fn update(&mut self, row: &Served) -> Result<(), Error> {
        match row.health {
            Some(check) => self.put(&row.name, check).await,
            None => self.delete(&row.name).await,
        }
    }

    async fn delete(&mut self, service: &ServiceName) -> Result<(), Error> {
        self.listeners.remove(service);
        self.failing.end(service);
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<Served>) -> Result<(), Error> {
        self.listeners.retain(|service, _| desired.get(service).is_some());
        self.failing.retain(|service| desired.get(service).is_some());
        Ok(())
    }
}

fn answer(service: &ServiceName, local_endpoints: usize, healthy: bool) -> Answer {
    Answer {
        status: if healthy && local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        body: json!({
            "service": {"namespace": &*service.namespace, "name": &*service.name},
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": healthy,
        }),
        weight: Some(local_endpoints),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use statedb::Target as _;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    fn served(port: Option<u16>, local_endpoints: usize) -> Served {
        let name = ServiceName::new("shop", "web");
        let health = port.map(|port| HealthCheck { port, local_endpoints });
        Served { health, ..Served::new(name) }
    }

    /// One that knows the Service.
    fn teller() -> (Teller, k8s::WarningQueue) {
        let (mut services, reader) = statedb::table("services");
        let name = ServiceName::new("shop", "web");
        services.insert(crate::Service { name, uid: "u".into(), ..crate::Service::default() });
        services.commit();
        let (warnings, queue) = k8s::Warnings::channel();
        (Teller { services: reader, pods: statedb::table("pods").1, node: "n1".into(), warnings }, queue)
    }

    /// Of a target that takes everything.
    #[derive(Debug)]
    struct Taking;

    impl statedb::Target<Frontend> for Taking {
        type Error = std::convert::Infallible;

        async fn update(&mut self, _: &Frontend) -> Result<(), Self::Error> {
            Ok(())
        }

        async fn delete(&mut self, _: &model::FrontendKey) -> Result<(), Self::Error> {
            Ok(())
        }

        async fn prune(&mut self, _: &Snapshot<Frontend>) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    /// The status of maps that hold everything.
    async fn healthy() -> StatusReader<Frontend> {
        let (mut writer, rows) = statedb::table("frontends");
        writer.mark_initialized();
        let status = statedb::reconcile(&statedb::Tasks::new(Default::default()), "maps", rows, Taking);
        while !is_healthy(&status) {
            tokio::task::yield_now().await;
        }
        status
    }

    #[test]
    fn a_node_whose_maps_do_not_hold_everything_gets_nothing() {
        let name = ServiceName::new("shop", "web");
        let of = |endpoints, healthy| answer(&name, endpoints, healthy);
        assert_eq!(
            (of(1, true).status.as_u16(), of(1, false).status.as_u16(), of(0, true).status.as_u16()),
            (200, 503, 503)
        );
        assert_eq!(of(1, false).body["serviceProxyHealthy"], false);
    }

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_service_is_healthy_where_it_has_endpoints_until_it_goes() {
        let (port, mut checks) = (ports::free(), Checks::new(teller().0, healthy().await));
        checks.update(&served(Some(port), 2)).await.unwrap();
        let healthy = ask(port).await.unwrap();
        assert!(healthy.starts_with("HTTP/1.1 200 OK") && healthy.contains("x-load-balancing-endpoint-weight: 2"));
        let body = r#"{"localEndpoints":2,"service":{"name":"web","namespace":"shop"},"serviceProxyHealthy":true}"#;
        assert!(healthy.ends_with(body), "{healthy}");
        checks.update(&served(Some(port), 0)).await.unwrap();
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.update(&served(None, 0)).await.unwrap();
        while ask(port).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_from_asking() {
        let (port, mut checks) = (ports::free(), Checks::new(teller().0, healthy().await));
        checks.update(&served(Some(port), 1)).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..2 * http::CONNECTIONS {
            silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
        }
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
        let [first, .., last] = &mut *silent else { unreachable!() };
        assert_eq!(first.read(&mut [0]).await.unwrap_or_default(), 0, "the oldest make room");
        assert!(last.try_read(&mut [0]).is_err(), "and no others");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_names_the_service_and_heals() {
        let taken = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
        let (port, mut checks) = (taken.local_addr().unwrap().port(), Checks::new(teller().0, healthy().await));
        let error = checks.update(&served(Some(port), 1)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("service shop/web, health check node port {port}"));
        drop(taken);
        checks.update(&served(Some(port), 1)).await.unwrap();
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_the_port_is_told_once_that_has_lasted_and_each_time_anew() {
        let taken = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let (teller, mut told) = teller();
        let mut checks = Checks::new(teller, healthy().await);
        let other = Served { name: ServiceName::new("shop", "other"), ..served(Some(port), 1) };
        let fail = async |checks: &mut Checks, row: &Served| {
            for seconds in [0, 6] {
                tokio::time::advance(Duration::from_secs(seconds)).await;
                checks.update(row).await.unwrap_err();
            }
        };
        fail(&mut checks, &served(Some(port), 1)).await;
        fail(&mut checks, &other).await;
        drop(taken);
        checks.update(&other).await.unwrap();
        checks.delete(&served(None, 0).name).await.unwrap();
        checks.update(&served(Some(port), 1)).await.unwrap_err();
        fail(&mut checks, &served(Some(port), 1)).await;
        checks.delete(&other.name).await.unwrap();
        drop(checks);
        let mut notes = Vec::new();
        while let Some(warning) = told.next().await {
            assert_eq!((warning.reason, warning.about.name.as_deref()), ("HealthCheckNotServed", Some("web")));
            notes.push(warning.note);
        }
        let says = |owner: &str| {
            format!(
                "Node n1 does not tell load balancers at port {port} (healthCheckNodePort) of its endpoints: the port is that of {owner}"
            )
        };
        assert_eq!(notes, [says("a program of the node"), says("the Service shop/other")]);
    }
}
