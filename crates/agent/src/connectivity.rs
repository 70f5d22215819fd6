// SPDX-License-Identifier: Apache-2.0
//! Connectivity checks: the wiring between the health endpoint (`endpoint`), its publication (`node`) and the probes
//! (`health`).

use endpoint::health::HealthEndpoint;
use rest::{ClusterStatus, State, Status};
use statedb::Tasks;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use surface::Surface;
use tokio::sync::watch;

/// The health endpoint, or why there is none.
pub(crate) type Endpoint = watch::Receiver<Result<HealthEndpoint, String>>;

/// Follows the health endpoint: publishes its addresses and passes on its namespace.
pub(crate) fn share(
    probing: bool,
    endpoint: Option<Endpoint>,
    addresses: watch::Sender<Option<Vec<IpAddr>>>,
    tasks: &Tasks,
) -> (watch::Receiver<Option<Arc<OwnedFd>>>, Surface) {
    let shown = endpoint.clone();
    let surface = Surface::new().status(move |all| {
        let cluster = all.cluster.get_or_insert_with(ClusterStatus::default);
        cluster.cilium_health = Some(status(probing, shown.as_ref()));
    });
    let (netns, receiver) = watch::channel(None);
    match endpoint {
        Some(endpoint) => tasks.spawn("health-endpoint", follow(endpoint, addresses, netns)),
        // Withdraw what an earlier configuration published.
        None => drop(addresses.send_replace(Some(Vec::new()))),
    }
    (receiver, surface)
}

async fn follow(
    mut endpoint: Endpoint,
    addresses: watch::Sender<Option<Vec<IpAddr>>>,
    netns: watch::Sender<Option<Arc<OwnedFd>>>,
) {
    loop {
        let present = endpoint.borrow_and_update().as_ref().ok().cloned();
        // While it is recreated, the published addresses stay.
        if let Some(present) = &present {
            addresses.send_replace(Some(present.addresses.clone()));
        }
        netns.send_replace(present.map(|present| present.netns));
        if endpoint.changed().await.is_err() {
            return;
        }
    }
}

/// The status of probing: that it runs, and whether others can probe this node's endpoint.
fn status(probing: bool, endpoint: Option<&Endpoint>) -> Status {
    if !probing {
        return Status { state: State::Disabled, msg: String::new() };
    }
    match endpoint.map(|endpoint| endpoint.borrow().as_ref().map(|_| ()).map_err(String::clone)) {
        Some(Err(why)) => Status { state: State::Warning, msg: format!("no health endpoint: {why}") },
        Some(Ok(())) | None => Status { state: State::Ok, msg: String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    fn made(ip: &str) -> HealthEndpoint {
        let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
        HealthEndpoint { netns: Arc::new(netns.into()), addresses: vec![ip.parse().unwrap()] }
    }

    #[tokio::test]
    async fn addresses_outlive_the_endpoint_and_its_namespace_does_not() {
        let tasks = Tasks::new(CancellationToken::new());
        let (endpoint, receiver) = watch::channel(Err("it is being created".to_owned()));
        let (addresses, mut published) = watch::channel(None);
        let (mut netns, _) = share(true, Some(receiver.clone()), addresses, &tasks);
        assert_eq!(status(true, Some(&receiver)).state, State::Warning);
        endpoint.send(Ok(made("10.0.0.7"))).unwrap();
        netns.wait_for(Option::is_some).await.unwrap();
        assert_eq!(status(true, Some(&receiver)).state, State::Ok);
        endpoint.send(Err("it is being recreated".to_owned())).unwrap();
        netns.wait_for(Option::is_none).await.unwrap();
        assert_eq!(*published.borrow_and_update(), Some(made("10.0.0.7").addresses));
        assert!(status(true, Some(&receiver)).msg.contains("being recreated"));
    }

    #[tokio::test]
    async fn without_an_endpoint_nothing_is_published_and_that_is_no_trouble() {
        let tasks = Tasks::new(CancellationToken::new());
        let (addresses, published) = watch::channel(None);
        let (netns, _) = share(true, None, addresses, &tasks);
        assert_eq!((published.borrow().clone(), netns.borrow().is_none()), (Some(Vec::new()), true));
        assert_eq!(status(true, None).state, State::Ok);
        assert_eq!(status(false, None).state, State::Disabled);
    }
}
