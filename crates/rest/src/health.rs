// SPDX-License-Identifier: Apache-2.0
//! Health of the cluster: `/v1beta` on the health socket.

use super::StatusResponse;

object! {
    /// The agent, and the node that it runs on: `GET /healthz`.
    HealthResponse {
        /// What the agent says of itself.
        cilium: Option<StatusResponse>,
        /// Since when health is probed, as a duration.
        uptime: String,
        system_load: Option<LoadResponse>,
    }

    /// Load of a node, as `/proc/loadavg` has it.
    LoadResponse {
        /// Average of the last minute.
        last1min: String,
        /// Average of the last five minutes.
        last5min: String,
        /// Average of the last fifteen minutes.
        last15min: String,
    }

    /// What can be reached from this node: `GET /status`, `PUT /status/probe`.
    HealthStatusResponse {
        /// When it last changed, RFC 3339.
        timestamp: String,
        /// How often each node is probed, as a duration.
        probe_interval = "probeInterval": String,
        local: Option<SelfStatus>,
        /// All nodes, this one included.
        nodes: Vec<NodeStatus>,
    }

    /// The node that probes.
    SelfStatus {
        name: String,
    }

    /// A node as seen from this one.
    NodeStatus {
        /// Name; with its cluster in front unless that has the default name.
        name: String,
        /// Addresses of the node itself.
        host: Option<HostStatus>,
        /// Addresses of its health endpoint, if it has one.
        health_endpoint: Option<HealthEndpointStatus>,
        /// The first of them again, where older clients look for it.
        endpoint: Option<PathStatus>,
    }

    /// Addresses of a node.
    HostStatus {
        primary_address: Option<PathStatus>,
        /// That of the other family.
        secondary_addresses: Vec<PathStatus>,
    }

    /// Addresses of a health endpoint.
    HealthEndpointStatus {
        primary_address: Option<PathStatus>,
        /// That of the other family.
        secondary_addresses: Vec<PathStatus>,
    }

    /// How one address can be reached.
    PathStatus {
        ip: String,
        /// By an echo request; none before the first probe.
        icmp: Option<ConnectivityStatus>,
        /// By a request for `/hello`; none before the first probe.
        http: Option<ConnectivityStatus>,
    }

    /// Outcome of the last probe.
    ConnectivityStatus {
        /// Round trip in nanoseconds, if there was an answer.
        latency: i64,
        /// Why there was none; empty if there was one.
        status: String,
        /// When it was probed, RFC 3339.
        last_probed = "lastProbed": String,
    }
}

/// Whether something can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connectivity {
    /// Every probe was answered.
    Reachable,
    /// A probe was not answered.
    Unreachable,
    /// Not all has been probed yet, and what has was answered.
    Unknown,
}

impl Connectivity {
    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }
}

impl PathStatus {
    /// Both protocols together.
    #[must_use]
    pub fn connectivity(&self) -> Connectivity {
        let protocols = [&self.icmp, &self.http];
        if protocols.iter().any(|probe| probe.as_ref().is_some_and(|probe| !probe.status.is_empty())) {
            Connectivity::Unreachable
        } else if protocols.iter().any(|probe| probe.is_none()) {
            Connectivity::Unknown
        } else {
            Connectivity::Reachable
        }
    }
}

impl NodeStatus {
    /// The node's own addresses, the primary one first.
    pub fn host_paths(&self) -> impl Iterator<Item = &PathStatus> {
        self.host.iter().flat_map(|host| host.primary_address.iter().chain(&host.secondary_addresses))
    }

    /// The addresses of its health endpoint, the primary one first.
    pub fn endpoint_paths(&self) -> impl Iterator<Item = &PathStatus> {
        self.health_endpoint.iter().flat_map(|host| host.primary_address.iter().chain(&host.secondary_addresses))
    }

    /// Whether nothing of it is known to be out of reach. A node that was not probed yet is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.host_paths().chain(self.endpoint_paths()).all(|path| path.connectivity() != Connectivity::Unreachable)
    }
}

impl HealthStatusResponse {
    /// How many nodes are healthy.
    #[must_use]
    pub fn healthy(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_healthy()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(icmp: Option<&str>, http: Option<&str>) -> PathStatus {
        let probe = |status: &str| ConnectivityStatus { status: status.to_owned(), ..ConnectivityStatus::default() };
        PathStatus { ip: "10.0.0.1".to_owned(), icmp: icmp.map(probe), http: http.map(probe) }
    }

    fn node(path: PathStatus) -> NodeStatus {
        let host = HostStatus { primary_address: Some(path), secondary_addresses: Vec::new() };
        NodeStatus { name: "n1".to_owned(), host: Some(host), ..NodeStatus::default() }
    }

    #[test]
    fn one_failed_protocol_makes_an_address_unreachable_and_a_missing_one_makes_it_unknown() {
        assert_eq!(path(Some(""), Some("")).connectivity(), Connectivity::Reachable);
        assert_eq!(path(Some(""), Some("refused")).connectivity(), Connectivity::Unreachable);
        assert_eq!(path(None, Some("refused")).connectivity(), Connectivity::Unreachable);
        assert_eq!(path(None, Some("")).connectivity(), Connectivity::Unknown);
        assert_eq!(path(None, None).connectivity(), Connectivity::Unknown);
    }

    #[test]
    fn a_node_that_was_not_probed_yet_is_not_counted_as_lost() {
        let nodes = vec![node(path(None, None)), node(path(Some("timed out"), None)), node(path(Some(""), Some("")))];
        assert_eq!(HealthStatusResponse { nodes, ..HealthStatusResponse::default() }.healthy(), 2);
    }

    #[test]
    fn the_keys_are_the_published_ones() {
        let mut status = node(path(Some(""), Some("refused")));
        status.health_endpoint = Some(HealthEndpointStatus::default());
        if let Some(icmp) = status.host.as_mut().and_then(|h| h.primary_address.as_mut()).and_then(|p| p.icmp.as_mut())
        {
            (icmp.latency, icmp.last_probed) = (7, "2026-01-31T12:00:00Z".to_owned());
        }
        let response = HealthStatusResponse {
            timestamp: "2026-01-31T12:00:00Z".to_owned(),
            probe_interval: "1m0s".to_owned(),
            local: Some(SelfStatus { name: "n1".to_owned() }),
            nodes: vec![status],
        };
        let json = serde_json::to_string(&response).unwrap();
        assert_eq!(
            json,
            r#"{"timestamp":"2026-01-31T12:00:00Z","probeInterval":"1m0s","local":{"name":"n1"},"nodes":[{"name":"n1","host":{"primary-address":{"ip":"10.0.0.1","icmp":{"latency":7,"lastProbed":"2026-01-31T12:00:00Z"},"http":{"status":"refused"}}},"health-endpoint":{}}]}"#
        );
        assert_eq!(serde_json::from_str::<HealthStatusResponse>(&json).unwrap(), response);
        let load = LoadResponse { last1min: "0.1".to_owned(), ..LoadResponse::default() };
        let health = HealthResponse { system_load: Some(load), ..HealthResponse::default() };
        assert_eq!(serde_json::to_string(&health).unwrap(), r#"{"system-load":{"last1min":"0.1"}}"#);
    }
}
