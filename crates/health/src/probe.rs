// SPDX-License-Identifier: Apache-2.0
//! Probing addresses: the seam between the mesh and the network.

use crate::{hello, icmp};
use futures::future::{join, join_all};
use rest::{ConnectivityStatus, PathStatus};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The round-trip time, or why there was no response.
pub(crate) type Answer = Result<Duration, String>;

/// Probes one address; both methods finish within seconds.
pub(crate) trait Probe: Clone + Send + Sync + 'static {
    /// By echo requests.
    fn icmp(&self, address: IpAddr) -> impl Future<Output = Answer> + Send;
    /// By a request for `/hello`.
    fn http(&self, address: IpAddr) -> impl Future<Output = Answer> + Send;
}

/// The network of this process.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Port of the responders.
    pub(crate) port: u16,
    /// Echo requests to send.
    pub(crate) requests: u32,
}

impl Probe for Network {
    async fn icmp(&self, address: IpAddr) -> Answer {
        icmp::ping(address, self.requests).await
    }

    async fn http(&self, address: IpAddr) -> Answer {
        hello::ask(SocketAddr::new(address, self.port)).await
    }
}

/// Probes several addresses at once, by both protocols.
pub(crate) async fn probe(network: &impl Probe, addresses: &[IpAddr]) -> Vec<(IpAddr, PathStatus)> {
    join_all(addresses.iter().map(|ip| probe_one(network, *ip))).await
}

async fn probe_one(network: &impl Probe, ip: IpAddr) -> (IpAddr, PathStatus) {
    let (icmp, http) = join(network.icmp(ip), network.http(ip)).await;
    let now = timestamp();
    let status = |answer| Some(connectivity(answer, &now));
    (ip, PathStatus { ip: ip.to_string(), icmp: status(icmp), http: status(http) })
}

fn connectivity(answer: Answer, now: &str) -> ConnectivityStatus {
    let (latency, status) = match answer {
        Ok(latency) => (i64::try_from(latency.as_nanos()).unwrap_or(i64::MAX), String::new()),
        Err(why) => (0, why),
    };
    ConnectivityStatus { latency, status, last_probed: now.to_owned() }
}

/// Now, to the second.
pub(crate) fn timestamp() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}
