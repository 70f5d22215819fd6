// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::{ConfigError, Key, Reader, shared};
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

const ENABLE: Key = Key::new("enable-hubble", "observe flows", "false");
const CAPACITY: Key = Key::new(
    "hubble-event-buffer-capacity",
    "how many flows are kept: one less than a power of two, 65535 at most",
    "4095",
);
const LISTEN: Key = Key::new(
    "hubble-listen-address",
    "where flows are served to other nodes and to relays, such as :4244; nowhere if empty",
    "",
);
const SOCKET: Key =
    Key::new("hubble-socket-path", "unix socket on which flows are served to this node", "/var/run/cilium/hubble.sock");
const DISABLE_TLS: Key = Key::new("hubble-disable-tls", "serve hubble-listen-address without TLS", "false");
pub(crate) const TLS_CERT: Key =
    Key::new("hubble-tls-cert-file", "certificate for hubble-listen-address; needed there unless TLS is disabled", "");
pub(crate) const TLS_KEY: Key = Key::new("hubble-tls-key-file", "private key of that certificate", "");
pub(crate) const TLS_CLIENT_CA: Key = Key::new(
    "hubble-tls-client-ca-files",
    "authorities whose clients are let in; without any, clients need no certificate",
    "",
);
const LOST_INTERVAL: Key =
    Key::new("hubble-lost-event-send-interval", "shortest time between two reports of lost events to one client", "1s");
const CORRELATE: Key =
    Key::new("hubble-network-policy-correlation-enabled", "name the policies behind each verdict", "true");
const PREFER_IPV6: Key =
    Key::new("hubble-prefer-ipv6", "tell relays the IPv6 address of a node that has both", "false");

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] = &[
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
        shared::CLUSTER_NAME,
    ];

    /// Types the keys; a missing one has its default. `node` and `version` are left for the caller to set.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let config = Self::read(&mut read);
        read.finish(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        let listen = read.address(&LISTEN);
        let disable_tls = read.flag(&DISABLE_TLS);
        Self {
            enabled: read.flag(&ENABLE),
            capacity: read
                .read(&CAPACITY, "one less than a power of two, from 1 to 65535", capacity)
                .unwrap_or_default(),
            listen,
            socket: read.path(&SOCKET).unwrap_or_default(),
            tls: if listen.is_some() && !disable_tls { tls(read) } else { None },
            lost_interval: read.duration(&LOST_INTERVAL).unwrap_or_default(),
            correlate_policies: read.flag(&CORRELATE),
            prefer_ipv6: read.flag(&PREFER_IPV6),
            cluster: read.text(&shared::CLUSTER_NAME).unwrap_or_default().to_owned(),
            node: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
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
    let mut path = |key: &Key| {
        let path = read.text(key).map(PathBuf::from);
        if path.is_none() {
            read.refuse(key, "", "a file: it is needed unless hubble-disable-tls is \"true\"");
        }
        path
    };
    let (certificate, key) = (path(&TLS_CERT), path(&TLS_KEY));
    let client_authorities = read.list(&TLS_CLIENT_CA).into_iter().map(PathBuf::from).collect();
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
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
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
        assert_eq!(keys, [CAPACITY, LISTEN, LOST_INTERVAL, PREFER_IPV6, SOCKET].map(|key| key.name));
    }

    #[test]
    fn serving_the_network_without_certificates_must_be_said_aloud() {
        let errors = parse(&[("hubble-listen-address", ":4244")]).unwrap_err();
        assert_eq!(errors.iter().map(|e| e.key).collect::<Vec<_>>(), [TLS_CERT.name, TLS_KEY.name]);
        assert!(parse(&[("hubble-listen-address", ":4244"), ("hubble-disable-tls", "true")]).unwrap().tls.is_none());
    }
}
