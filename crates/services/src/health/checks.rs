// SPDX-License-Identifier: Apache-2.0
//! The health checks of Services under a local policy: one listener for each that has a `healthCheckNodePort`.

use super::http::{self, Answer};
use crate::served::{HealthCheck, Served};
use hyper::StatusCode;
use model::ServiceName;
use serde_json::json;
use statedb::Snapshot;
use std::collections::BTreeMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("service {service}, health check node port {port}")]
pub(crate) struct Error {
    service: ServiceName,
    port: u16,
    source: std::io::Error,
}

/// The listeners.
#[derive(Debug, Default)]
pub(crate) struct Checks(BTreeMap<ServiceName, Listener>);

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
    async fn put(&mut self, service: &ServiceName, check: HealthCheck) -> Result<(), Error> {
        if let Some(listener) = self.0.get(service).filter(|listener| listener.port == check.port) {
            listener.endpoints.send_replace(check.local_endpoints);
            return Ok(());
        }
        self.0.remove(service);
        let failed = |source| Error { service: service.clone(), port: check.port, source };
        let socket = http::listen(check.port).await.map_err(failed)?;
        let (endpoints, counted) = watch::channel(check.local_endpoints);
        let name = service.clone();
        let answer = move |path: &str| (path == "/healthz" || path == "/").then(|| answer(&name, *counted.borrow()));
        let task = tokio::spawn(http::serve(socket, answer)).abort_handle();
        self.0.insert(service.clone(), Listener { port: check.port, endpoints, task });
        Ok(())
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
        self.0.remove(service);
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<Served>) -> Result<(), Error> {
        self.0.retain(|service, _| desired.get(service).is_some());
        Ok(())
    }
}

fn answer(service: &ServiceName, local_endpoints: usize) -> Answer {
    Answer {
        status: if local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        body: json!({
            "service": {"namespace": &*service.namespace, "name": &*service.name},
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": true,
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    fn served(port: Option<u16>, local_endpoints: usize) -> Served {
        let name = ServiceName::new("shop", "web");
        let health = port.map(|port| HealthCheck { port, local_endpoints });
        Served { health, ..Served::new(name) }
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
        let (port, mut checks) = (ports::free(), Checks::default());
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
        let (port, mut checks) = (ports::free(), Checks::default());
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
        let (port, mut checks) = (taken.local_addr().unwrap().port(), Checks::default());
        let error = checks.update(&served(Some(port), 1)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("service shop/web, health check node port {port}"));
        drop(taken);
        checks.update(&served(Some(port), 1)).await.unwrap();
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
    }
}
