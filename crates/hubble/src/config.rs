// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::{ConfigError, Reader};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where flows are kept and served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether flows are observed at all (`enable-hubble`).
    pub enabled: bool,
    /// How many events the ring holds: one less than a power of two (`hubble-event-buffer-capacity`).
    pub capacity: u16,
    /// Where to serve other nodes and relays, if at all (`hubble-listen-address`).
    pub listen: Option<SocketAddr>,
    /// Where to serve this node (`hubble-socket-path`).
    pub socket: PathBuf,
    /// Certificates for `listen`; none when TLS is off (`hubble-disable-tls`).
    pub tls: Option<TlsFiles>,
    /// Shortest time between two reports of lost events to one client (`hubble-lost-event-send-interval`).
    pub lost_interval: Duration,
    /// Whether verdicts name the policies behind them (`hubble-network-policy-correlation-enabled`).
    pub correlate_policies: bool,
    /// Whether peers are told the IPv6 address of a node that has both (`hubble-prefer-ipv6`).
    pub prefer_ipv6: bool,
    /// Name of the cluster (`cluster-name`).
    pub cluster: String,
    /// Name of this node. Not a key of the chart: the agent knows it.
    pub node: String,
    /// Version of the agent, without a leading `v`.
    pub version: String,
}

/// Where certificates are (`hubble-tls-cert-file`, `hubble-tls-key-file`, `hubble-tls-client-ca-files`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities whose clients are let in.
    pub client_authorities: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            capacity: 4095,
            listen: None,
            socket: PathBuf::from("/var/run/cilium/hubble.sock"),
            tls: None,
            lost_interval: Duration::from_secs(1),
            correlate_policies: true,
            prefer_ipv6: false,
            cluster: "default".to_owned(),
            node: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

const ENABLE: &str = "enable-hubble";
const CAPACITY: &str = "hubble-event-buffer-capacity";
const LISTEN: &str = "hubble-listen-address";
const SOCKET: &str = "hubble-socket-path";
const DISABLE_TLS: &str = "hubble-disable-tls";
const TLS_CERT: &str = "hubble-tls-cert-file";
const TLS_KEY: &str = "hubble-tls-key-file";
const TLS_CLIENT_CA: &str = "hubble-tls-client-ca-files";
const LOST_INTERVAL: &str = "hubble-lost-event-send-interval";
const CORRELATE: &str = "hubble-network-policy-correlation-enabled";
const PREFER_IPV6: &str = "hubble-prefer-ipv6";
const CLUSTER: &str = "cluster-name";

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[&str] = &[
        ENABLE,
        CAPACITY,
        LISTEN,
        SOCKET,
        DISABLE_TLS,
        TLS_CERT,
        TLS_KEY,
        TLS_CLIENT_CA,
        LOST_INTERVAL,
        CORRELATE,
        PREFER_IPV6,
        CLUSTER,
    ];

    /// Reads the keys; a missing one has its default. `node` and `version` are left for the caller to set.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let default = Self::default();
        let enabled = read.flag(ENABLE, default.enabled);
        let capacity = read.read(CAPACITY, "one less than a power of two, from 1 to 65535", capacity);
        let listen = read.address(LISTEN);
        let socket = read.path(SOCKET);
        let lost_interval = read.duration(LOST_INTERVAL);
        let disable_tls = read.flag(DISABLE_TLS, false);
        let tls = if listen.is_some() && !disable_tls { tls(&mut read) } else { None };
        let config = Self {
            enabled,
            capacity: capacity.unwrap_or(default.capacity),
            listen,
            socket: socket.unwrap_or(default.socket),
            tls,
            lost_interval: lost_interval.unwrap_or(default.lost_interval),
            correlate_policies: read.flag(CORRELATE, default.correlate_policies),
            prefer_ipv6: read.flag(PREFER_IPV6, default.prefer_ipv6),
            cluster: read.text(CLUSTER).map_or(default.cluster, str::to_owned),
            node: default.node,
            version: default.version,
        };
        read.finish(config)
    }

    /// The name under which flows carry this node.
    pub(crate) fn node_name(&self) -> String {
        qualified(&self.cluster, &self.node)
    }
}

/// `cluster/node`, or just the node in the cluster `default`.
pub(crate) fn qualified(cluster: &str, node: &str) -> String {
    if cluster.is_empty() || cluster == "default" { node.to_owned() } else { format!("{cluster}/{node}") }
}

fn tls(read: &mut Reader<'_>) -> Option<TlsFiles> {
    let mut path = |key| {
        let path = read.text(key).map(PathBuf::from);
        if path.is_none() {
            read.refuse(key, "", "a file: it is needed unless hubble-disable-tls is \"true\"");
        }
        path
    };
    let (certificate, key) = (path(TLS_CERT), path(TLS_KEY));
    let client_authorities = read.list(TLS_CLIENT_CA).into_iter().map(PathBuf::from).collect();
    Some(TlsFiles { certificate: certificate?, key: key?, client_authorities })
}

fn capacity(text: &str) -> Option<u16> {
    text.parse::<u16>().ok().filter(|&n| n > 0 && (u32::from(n) + 1).is_power_of_two())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_charts_keys_are_understood() {
        let config = parse(&[
            ("enable-hubble", "true"),
            ("hubble-event-buffer-capacity", "511"),
            ("hubble-listen-address", ":4244"),
            ("hubble-disable-tls", "true"),
            ("hubble-lost-event-send-interval", "1m1.5s"),
            ("cluster-name", "blue"),
        ])
        .unwrap();
        assert!(config.enabled);
        assert_eq!(config.capacity, 511);
        assert_eq!(config.listen, Some("[::]:4244".parse().unwrap()));
        assert_eq!(config.lost_interval, Duration::from_millis(61_500));
        assert_eq!(Config { node: "n1".to_owned(), ..config }.node_name(), "blue/n1");
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let errors = parse(&[
            ("hubble-event-buffer-capacity", "4096"),
            ("hubble-listen-address", "4244"),
            ("hubble-socket-path", "hubble.sock"),
            ("hubble-prefer-ipv6", "yes"),
            ("hubble-lost-event-send-interval", "5"),
        ])
        .unwrap_err();
        let mut keys: Vec<_> = errors.iter().map(|e| e.key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [CAPACITY, LISTEN, LOST_INTERVAL, PREFER_IPV6, SOCKET]);
    }

    #[test]
    fn serving_the_network_without_certificates_must_be_said_aloud() {
        let errors = parse(&[("hubble-listen-address", ":4244")]).unwrap_err();
        assert_eq!(errors.iter().map(|e| e.key).collect::<Vec<_>>(), [TLS_CERT, TLS_KEY]);
        assert!(parse(&[("hubble-listen-address", ":4244"), ("hubble-disable-tls", "true")]).unwrap().tls.is_none());
    }
}
