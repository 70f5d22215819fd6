// SPDX-License-Identifier: Apache-2.0
//! Configuration: the file that the chart writes, overridden by flags of the same names. All errors are reported at once.

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgMatches, Command};
use hubble::server::{TlsFile, TlsFiles};
use model::config::{Arguments, ConfigErrors, Group, Key, LogOption, Reader, keys};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "/etc/hubble-relay/config.yaml";

const SERVER_CERT: Key<Option<String>> =
    Key::new("tls-relay-server-cert-file", "Certificate for listen-address; needed unless disable-server-tls");
const SERVER_KEY: Key<Option<String>> = Key::new("tls-relay-server-key-file", "Private key of that certificate");
const CLIENT_CA: Key<Vec<String>> = Key::new(
    "tls-relay-client-ca-files",
    "Authorities whose clients are let in; without any, clients need no certificate",
);
const CLIENT_CERT: Key<Option<String>> =
    Key::new("tls-hubble-client-cert-file", "Certificate to show to nodes; needed unless disable-client-tls");
const CLIENT_KEY: Key<Option<String>> = Key::new("tls-hubble-client-key-file", "Private key of that certificate");
const SERVER_CA: Key<Vec<String>> =
    Key::new("tls-hubble-server-ca-files", "Authorities that nodes must have their certificates from");

/// Keys of the published chart for tools that are not included.
const WITHOUT_EFFECT: [&str; 6] = ["gops", "gops-port", "pprof", "pprof-address", "pprof-port", "log-format"];

keys! {
    /// Which nodes are asked, and who may ask.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Name of the cluster, which is part of the names in nodes' certificates.
        #[key("cluster-name", default = "default")]
        pub cluster: String,
        /// Where the nodes are told: host:port or unix:///path.
        #[key("peer-service", default = "unix:///var/run/cilium/hubble.sock")]
        pub peer_service: String,
        /// Where flows are served.
        #[key("listen-address", default = ":4245")]
        pub listen: Option<SocketAddr>,
        /// Where the kubelet asks for health.
        #[key("health-listen-address", default = ":4222")]
        pub health_listen: Option<SocketAddr>,
        /// Where Prometheus asks for metrics; nowhere if empty.
        #[key("metrics-listen-address")]
        pub metrics_listen: Option<SocketAddr>,
        /// How long a node may take to answer.
        #[key("dial-timeout", default = "5s")]
        pub dial_timeout: Duration,
        /// Longest time between two attempts to connect to a node.
        #[key("retry-timeout", default = "30s")]
        pub retry_timeout: Duration,
        /// How many flows may wait for older ones of other nodes; at least one of each node may.
        #[key("sort-buffer-len-max", default = "100")]
        pub buffer: u16,
        /// How long flows wait for a node that sends none.
        #[key("sort-buffer-drain-timeout", default = "1s")]
        pub drain_timeout: Duration,
        /// Ask nodes without TLS.
        #[key("disable-client-tls", default = "false")]
        pub disable_client_tls: bool,
        #[key(CLIENT_CERT)]
        pub client_certificate: Option<String>,
        #[key(CLIENT_KEY)]
        pub client_key: Option<String>,
        #[key(SERVER_CA)]
        pub server_authorities: Vec<String>,
        /// Serve listen-address without TLS.
        #[key("disable-server-tls", default = "false")]
        pub disable_server_tls: bool,
        #[key(SERVER_CERT)]
        pub server_certificate: Option<String>,
        #[key(SERVER_KEY)]
        pub server_key: Option<String>,
        #[key(CLIENT_CA)]
        pub client_authorities: Vec<String>,
        /// What is logged: debug, or less.
        #[key("log-level", default = "info")]
        pub log_level: String,
        /// Log details.
        #[key("debug", default = "false")]
        pub debug: bool,
        /// How logs are written: format=json or format=text, and level=debug, info, warn or error.
        #[key("log-opt")]
        pub log_options: Vec<LogOption>,
    }
    check Self::refuse_misfits;
}

/// What a client of nodes shows and trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authorities: Vec<PathBuf>,
}

/// The command line of `hubble-relay`.
#[must_use]
pub fn command() -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("YAML file with the same keys; flags win");
    let serve = Command::new("serve").about("Serve the flows of all nodes").arg(file);
    Command::new("hubble-relay")
        .about("Flows of all nodes at one place")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Arguments::flags(serve, &Config::keys()))
}

impl Config {
    /// From the command line (program name first), and the file it names or the chart's.
    pub(crate) fn load(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let matches = command().try_get_matches_from(arguments)?;
        let Some(("serve", serve)) = matches.subcommand() else { bail!("want the command serve") };
        let mut values = file_of(serve)?.map_or_else(|| Ok(BTreeMap::new()), |path| read(&path))?;
        let known: Vec<_> = Self::keys().iter().map(|key| key.name).collect();
        for key in values.keys().filter(|key| !known.contains(&key.as_str())) {
            let effect = if WITHOUT_EFFECT.contains(&key.as_str()) { "without effect" } else { "unknown" };
            eprintln!("hubble-relay: configuration key {key} is {effect}");
        }
        values.extend(Arguments::given(serve));
        Ok(Self::parse(&values).map_err(ConfigErrors::from)?)
    }

    /// TLS towards nodes, if enabled.
    pub(crate) fn client_tls(&self) -> Option<ClientTls> {
        if self.disable_client_tls {
            return None;
        }
        Some(ClientTls {
            certificate: self.client_certificate.as_ref()?.into(),
            key: self.client_key.as_ref()?.into(),
            authorities: self.server_authorities.iter().map(PathBuf::from).collect(),
        })
    }

    /// TLS towards clients, if enabled.
    pub(crate) fn server_tls(&self) -> Option<TlsFiles> {
        if self.disable_server_tls {
            return None;
        }
        let file = |option, path: &String| TlsFile { option, path: path.into() };
        Some(TlsFiles {
            certificate: file(SERVER_CERT.name, self.server_certificate.as_ref()?),
            key: file(SERVER_KEY.name, self.server_key.as_ref()?),
            client_authorities: self.client_authorities.iter().map(|path| file(CLIENT_CA.name, path)).collect(),
        })
    }

    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        let server = [(SERVER_CERT.name, &self.server_certificate), (SERVER_KEY.name, &self.server_key)];
        let client = [(CLIENT_CERT.name, &self.client_certificate), (CLIENT_KEY.name, &self.client_key)];
        for (off, switch, files) in [
            (self.disable_server_tls, "disable-server-tls", server),
            (self.disable_client_tls, "disable-client-tls", client),
        ] {
            for (key, _) in files.iter().filter(|(_, file)| !off && file.is_none()) {
                read.refuse(key, "", format!("a file: it is needed unless {switch} is \"true\""));
            }
        }
        for (key, time) in [("dial-timeout", self.dial_timeout), ("retry-timeout", self.retry_timeout)] {
            if time.is_zero() {
                read.refuse(key, "0", "a time that is longer than none");
            }
        }
    }
}

/// The named file, or the chart's if it exists.
fn file_of(serve: &ArgMatches) -> anyhow::Result<Option<PathBuf>> {
    let named = serve.get_one::<String>("config").map(PathBuf::from);
    Ok(named.or_else(|| Path::new(FILE).exists().then(|| FILE.into())))
}

/// A mapping from keys to texts, numbers, booleans, or lists of these.
fn read(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let place = || format!("read {}", path.display());
    let values: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(&text).with_context(place)?;
    let values = values.unwrap_or_default();
    values.into_iter().map(|(key, value)| Ok((key.clone(), scalar(&key, &value).with_context(place)?))).collect()
}

fn scalar(key: &str, value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            ensure!(!items.iter().any(|item| item.is_array()), "{key}: a list within a list");
            items.iter().map(|item| scalar(key, item)).collect::<anyhow::Result<Vec<_>>>()?.join(" ")
        }
        Value::Object(_) => bail!("{key}: want a text, a number, a switch or a list"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn load(yaml: &str, flags: &[&str]) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let file = file.display().to_string();
        let arguments = ["hubble-relay", "serve", "--config", &file].into_iter().chain(flags.iter().copied());
        Config::load(arguments.map(OsString::from))
    }

    const CHART: &str = "
cluster-name: blue
peer-service: \"hubble-peer.kube-system.svc.cluster.local.:443\"
listen-address: :4245
gops: true
gops-port: \"9893\"
retry-timeout:
sort-buffer-len-max: 50
sort-buffer-drain-timeout: 2s
tls-hubble-client-cert-file: /tls/client.crt
tls-hubble-client-key-file: /tls/client.key
tls-hubble-server-ca-files: [/tls/one.crt, /tls/two.crt]
disable-server-tls: true
";

    #[test]
    fn the_charts_file_is_understood_and_flags_win_over_it() {
        let config = load(CHART, &["--sort-buffer-len-max=7"]).unwrap();
        assert_eq!((config.cluster.as_str(), config.buffer), ("blue", 7));
        assert_eq!((config.drain_timeout, config.retry_timeout), (Duration::from_secs(2), Duration::from_secs(30)));
        let tls = config.client_tls().unwrap();
        assert_eq!(tls.authorities, ["/tls/one.crt", "/tls/two.crt"].map(PathBuf::from));
        assert_eq!(config.server_tls(), None);
    }

    #[test]
    fn what_is_to_be_encrypted_needs_files_and_each_error_names_its_key() {
        let error = load("retry-timeout: 0s\nsort-buffer-len-max: many", &[]).unwrap_err().to_string();
        for key in [
            "tls-relay-server-cert-file",
            "tls-relay-server-key-file",
            "tls-hubble-client-cert-file",
            "tls-hubble-client-key-file",
            "retry-timeout",
            "sort-buffer-len-max",
        ] {
            assert!(error.contains(&format!("configuration key {key}:")), "{key} is missing in: {error}");
        }
        assert!(load("disable-client-tls: true\ndisable-server-tls: \"true\"", &[]).is_ok());
    }

    #[test]
    fn a_file_that_is_no_mapping_of_keys_is_refused_by_name() {
        for text in ["[", "- a", "tls-hubble-server-ca-files: {a: b}", "tls-hubble-server-ca-files: [[a]]"] {
            let error = format!("{:#}", load(text, &[]).unwrap_err());
            assert!(error.contains("config.yaml"), "{text}: {error}");
        }
    }
}
